"""Denoising networks in files: diffusers' U-Nets, EDM's pickles, and ours under our own names.

Ours are safetensors: diffusers' names where it has the network, else the modules' names joined by
dots, "down0_0.conv1.kernel".
"""

import dataclasses

import flax.traverse_util
import numpy as np

from genjax.errors import UserError
from genjax.weights.edm import from_edm, is_edm
from genjax.weights.read import read_arrays
from genjax.weights.unet import from_diffusers, has_diffusers_names, to_diffusers
from genjax.weights.write import write_safetensors

# Fields of a network that its parameters do not show.
_FREE = ("dropout", "remat", "dtype", "parent", "name")


def load_network(path, network, wanted, image_shape):
    """Reads the parameters of a network.

    Args:
      path: a file of `genjax.weights.read.read_arrays`.
      network: the Flax module that they are to fit.
      wanted: its parameters, or their shapes.
      image_shape: (H, W, C).

    Returns:
      (nested dicts of float32 NumPy arrays, SHA-256 of the file).

    Raises:
      UserError: the file cannot be read, or is of another network.
    """
    arrays, sha256 = read_arrays(path)
    found = None
    if is_edm(arrays):
        found, params = from_edm(arrays, image_shape[0], path)
    elif "conv_in.weight" in arrays:
        found, params = from_diffusers(arrays, image_shape[0], path)
    if found is not None:
        _check_fields(path, network, found)
        arrays = flax.traverse_util.flatten_dict(params, sep=".")
    shapes = {k: v.shape for k, v in flax.traverse_util.flatten_dict(wanted, sep=".").items()}
    another = f"the weights {path} are of another network"
    for name in sorted(arrays.keys() ^ shapes.keys()):
        raise UserError(f"{another}: it has {'no ' if name in shapes else ''}{name!a:.80}")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            there = list(arrays[name].shape)
            raise UserError(f"{another}: {name} is {there} there, {list(shape)} here")
    flat = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="."), sha256


def _check_fields(path, network, found):
    """Refuses `found`, the network in a file, if it is not the one that is wanted."""
    fields = [field.name for field in dataclasses.fields(found) if field.name not in _FREE]
    differ = {
        f: getattr(found, f) for f in fields if getattr(network, f, None) != getattr(found, f)
    }
    if "num_classes" in differ:
        differ["conditional"] = differ.pop("num_classes") > 0
    if type(network) is not type(found):
        differ = {"name": type(found).__name__.lower(), **differ}
    if differ:
        quoted = {f: str(value).replace(" ", "") for f, value in differ.items()}
        listed = " ".join(f"--config.model.{f}='{text}'" for f, text in quoted.items())
        raise UserError(f"the weights {path} are of another network: take {listed}")


def save_network(path, network, params, metadata):
    """Writes what `load_network` reads; returns whose names are used, "diffusers'" or "our"."""
    named = has_diffusers_names(network, params)
    arrays = to_diffusers(network, params) if named else params
    write_safetensors(path, arrays, {"format": "pt", **metadata})
    return "diffusers'" if named else "our"
