"""DDPM++ U-Nets as Karras et al. 2022 (EDM) publish them: pickles of `SongUNet` modules.

Maps their names to ours. The arrays are

  theirs, [out, in, kh, kw] and [out, in]        ours, [kh, kw, in, out] and [in, out]
  NAME.weight, .bias                             NAME/kernel, /bias; of norms /scale, /bias
  BLOCK.qkv, q, k and v of channel 1, of 2, ...  BLOCK_attention/qkv, all of q, of k, of v
  map_label, sqrt(classes) times one class       classes/embedding, the last one of no class

Their networks with the preconditioning "edm" are ours with process "edm" and target "F"; those with
"vp" are ours with process "vp", target "eps" and sigma_data 1. The input of augmentation labels is
left out: images are sampled without augmentation. NCSN++ and ADM networks are not supported.
"""

import os
import re
from collections.abc import Iterable, Mapping

import flax.traverse_util
import numpy as np

from genjax.errors import UserError
from genjax.models.unet import UNet
from genjax.typing import AnyArray, Float, Params

_MARK = "model.map_layer0.weight"
_TOP = {"map_layer0": "time1", "map_layer1": "time2"}
_BLOCK = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "skip",
}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "out"}


def is_edm(arrays: Iterable[str]) -> bool:
    """Tells whether {dotted name: array} come from such a pickle."""
    return any(name.endswith(_MARK) for name in arrays)


def from_edm(
    arrays: Mapping[str, AnyArray], size: int, path: str | os.PathLike = "given"
) -> tuple[UNet, Params]:
    """Converts {dotted name: array} of a pickle to a network and its parameters.

    Args:
      arrays: "ema.model.enc.32x32_conv.weight", and so on; modules other than "ema" are left out.
      size: side of its images.
      path: for messages.

    Returns:
      (`UNet` of variant "ddpmpp", float32 NumPy arrays).

    Raises:
      UserError: they are not of a DDPM++ network.
    """
    where = f"the weights {path} are not of an EDM network in DDPM++ form: "
    prefixes = [name.removesuffix(_MARK) for name in arrays if name.endswith(_MARK)]
    prefix = ("ema." if "ema." in prefixes else prefixes[0]) + "model."
    arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    params = {}
    for name, array in arrays.items():
        *modules, kind = name.split(".")
        if name.startswith(("map_label.", "map_augment.")):
            continue
        if kind == "resample_filter":
            if array.shape != (1, 1, 2, 2) or np.any(array != 0.25):
                raise UserError(f"{where}it resamples with another filter than [1, 1]")
            continue
        ours = _our_name(modules, size)
        if ours is None or kind not in ("weight", "bias"):
            raise UserError(f"{where}it has {name!a:.80}")
        if array.ndim not in (1, 2, 4):
            raise UserError(f"{where}{name} has the shape {array.shape}")
        if kind == "weight":
            kind = "scale" if "norm" in modules[-1] else "kernel"
        params[(*ours, kind)] = _our_array(np.asarray(array, np.float32), ours[-1])
    classes = _classes(arrays, where)
    try:
        network = _architecture(params, size, classes)
    except KeyError as error:
        raise UserError(f"{where}it has no {error}") from error
    if classes is not None:
        params[("classes", "embedding")] = classes
    return network, flax.traverse_util.unflatten_dict(params)


def _our_array(array: np.ndarray, module: str) -> np.ndarray:
    """Converts an array of one of our modules to our layout."""
    if module == "qkv":
        array = array.reshape(-1, 3, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    if array.ndim == 4 and module in ("skip", "qkv", "out"):
        array = array[:, :, 0, 0]  # 1x1 convolutions are dense layers here
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
    return np.ascontiguousarray(array.transpose(axes))


def _architecture(
    params: dict[tuple[str, ...], np.ndarray], size: int, classes: np.ndarray | None
) -> UNet:
    """Returns the network with these parameters; a KeyError if its first layer is missing."""
    widths, attention, blocks = {}, set(), 0
    for (first, *rest), array in params.items():
        in_encoder = re.fullmatch(r"down(\d+)_(\d+)(_attention)?", first)
        if in_encoder:
            stage, block, attends = in_encoder.groups()
            blocks = max(blocks, int(block) + 1)
            if attends:
                attention.add(size >> int(stage))
            elif rest == ["conv1", "bias"]:
                widths[int(stage)] = len(array)
    channels = params[("conv_in", "kernel")].shape[-1]
    return UNet(
        channels,
        tuple(widths[stage] // channels for stage in range(len(widths))),
        blocks,
        tuple(sorted(attention, reverse=True)),
        "ddpmpp",
        num_classes=0 if classes is None else len(classes) - 1,
        classes_first=classes is not None,
    )


def _our_name(modules: list[str], size: int) -> tuple[str, ...] | None:
    """Returns our module for one of theirs, as a tuple of names; None if there is none."""
    if len(modules) == 1:
        return (_TOP[modules[0]],) if modules[0] in _TOP else None
    if len(modules) not in (2, 3):
        return None
    part, block, *rest = modules
    match = re.fullmatch(r"(\d+)x\1_(conv|down|up|aux_norm|aux_conv|in0|in1|block\d+)", block)
    if part not in ("enc", "dec") or match is None:
        return None
    side, kind = int(match[1]), match[2]
    stage = (size // max(side, 1)).bit_length() - 1
    if stage < 0 or size >> stage != side:
        return None
    single = {"conv": "conv_in", "aux_norm": "norm_out", "aux_conv": "conv_out"}
    if kind in single:
        return None if rest or stage else (single[kind],)
    if not rest:
        return None
    names = {"down": f"down{stage}_halve", "up": f"up{stage}_double"}
    names |= {"in0": "middle_0", "in1": "middle_1"}
    ours = names.get(kind, f"{'down' if part == 'enc' else 'up'}{stage}_{kind[5:]}")
    if rest[0] in _ATTENTION:
        return ("middle_attention" if kind == "in0" else f"{ours}_attention", _ATTENTION[rest[0]])
    return (ours, _BLOCK[rest[0]]) if rest[0] in _BLOCK else None


def _classes(
    arrays: Mapping[str, AnyArray], where: str
) -> Float[np.ndarray, "classes channels"] | None:
    """Returns what is added for each class, and last for no class; None without classes."""
    if "map_label.weight" not in arrays:
        return None
    weight = np.asarray(arrays["map_label.weight"], np.float32)
    bias = np.asarray(arrays.get("map_label.bias", ()), np.float32)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UserError(f"{where}map_label has the shape {weight.shape}")
    table = np.float32(np.sqrt(weight.shape[1])) * weight.T
    return np.concatenate([table, np.zeros_like(table[:1])]) + bias
