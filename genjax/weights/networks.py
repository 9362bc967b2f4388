"""Denoising networks in files: diffusers' U-Nets, EDM's pickles, and our own files.

Our own files are safetensors, with diffusers' names where diffusers has the network, and otherwise
with the modules' names joined by dots, "down0_0.conv1.kernel".
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.traverse_util

from genjax.errors import UserError
from genjax.typing import Params
from genjax.weights.edm import from_edm, is_edm
from genjax.weights.read import finite_float32, read_arrays
from genjax.weights.unet import from_diffusers, has_diffusers_names, to_diffusers
from genjax.weights.write import write_safetensors

# Fields of a network that do not show in its parameters.
_FREE = ("dropout", "remat", "dtype", "parent", "name")


def load_network(
    path: str | os.PathLike, network: Any, wanted: Params, image_shape: tuple[int, ...]
) -> tuple[Params, str]:
    """Reads the parameters of a network.

    Args:
      path: a file for `genjax.weights.read.read_arrays`.
      network: the Flax module that the parameters must fit.
      wanted: its parameters, or their shapes.
      image_shape: (H, W, C).

    Returns:
      (nested dicts of float32 NumPy arrays, SHA-256 of the file).

    Raises:
      UserError: the file cannot be read, is of another network, or not finite.
    """
    arrays, sha256 = read_arrays(path)
    in_file = None
    if is_edm(arrays):
        in_file, params = from_edm(arrays, image_shape[0], path)
    elif "conv_in.weight" in arrays:
        in_file, params = from_diffusers(arrays, image_shape[0], path)
    if in_file is not None:
        _check_fields(path, network, in_file)
        arrays = flax.traverse_util.flatten_dict(params, sep=".")
    shapes = {k: v.shape for k, v in flax.traverse_util.flatten_dict(wanted, sep=".").items()}
    another = f"the weights {path} are of another network"
    for name in sorted(arrays.keys() ^ shapes.keys()):
        raise UserError(f"{another}: it has {'no ' if name in shapes else ''}{name!a:.80}")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            there = list(arrays[name].shape)
            raise UserError(f"{another}: {name} is {there} there, {list(shape)} here")
    flat = {
        name: finite_float32(array, f"the weights {path}: {name}") for name, array in arrays.items()
    }
    return flax.traverse_util.unflatten_dict(flat, sep="."), sha256


def _check_fields(path: str | os.PathLike, network: Any, in_file: Any) -> None:
    """Raises a UserError unless the network in a file has the fields of the requested one."""
    fields = [field.name for field in dataclasses.fields(in_file) if field.name not in _FREE]
    differ = {
        f: getattr(in_file, f) for f in fields if getattr(network, f, None) != getattr(in_file, f)
    }
    if "num_classes" in differ:
        differ["conditional"] = differ.pop("num_classes") > 0
    if type(network) is not type(in_file):
        differ = {"name": type(in_file).__name__.lower(), **differ}
    if differ:
        quoted = {f: str(value).replace(" ", "") for f, value in differ.items()}
        listed = " ".join(f"--config.model.{f}='{text}'" for f, text in quoted.items())
        raise UserError(f"the weights {path} are of another network: take {listed}")


def save_network(
    path: str | os.PathLike, network: Any, params: Params, metadata: Mapping[str, Any]
) -> str:
    """Writes a file for `load_network`; returns whose names it has, "diffusers'" or "our"."""
    named = has_diffusers_names(network, params)
    arrays = to_diffusers(network, params) if named else params
    write_safetensors(path, arrays, {"format": "pt", **metadata})
    return "diffusers'" if named else "our"
