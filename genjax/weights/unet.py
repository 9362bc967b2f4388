"""DDPM U-Nets as diffusers' `UNet2DModel` saves them, such as google/ddpm-cifar10-32's.

That one was trained with the process `ddpm_linear` and the target "eps", and takes x unscaled
(sigma_data = 1). Maps diffusers' names to those of the modules in `genjax.models.unet`; their
arrays are

  diffusers, [out, in, kh, kw] and [out, in]     ours, [kh, kw, in, out] and [in, out]
  NAME.weight, .bias                             NAME/kernel, /bias; of norms /scale, /bias
  ATTENTION.to_q, .to_k, .to_v                   ATTENTION/qkv, concatenated

Files from before diffusers 0.15 have query, key, value and proj_attn.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from genjax.errors import UserError
from genjax.models.unet import UNet
from genjax.typing import AnyArray, Params

_OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_RES = {"time": "time_emb_proj", "skip": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}
_TOP = {
    "time1": "time_embedding.linear_1",
    "time2": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
    "middle_0": "mid_block.resnets.0",
    "middle_1": "mid_block.resnets.1",
    "middle_attention": "mid_block.attentions.0",
}


def from_diffusers(
    arrays: Mapping[str, AnyArray], size: int, path: str | os.PathLike = "given"
) -> tuple[UNet, Params]:
    """Converts {diffusers' name: array} to a network and its parameters.

    Args:
      arrays: all of a network; all names and shapes must be right.
      size: side of its images.
      path: for messages.

    Returns:
      (`UNet` of variant "ddpm", float32 NumPy arrays).

    Raises:
      UserError: they are not of such a network.
    """
    where = f"the weights {path} are not of a DDPM U-Net: "
    arrays = {_newer(name): np.asarray(array) for name, array in arrays.items()}
    try:
        network = _architecture(arrays, size)
        shapes = _shapes(network, size, arrays["conv_in.weight"].shape[1])
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{where}{error} is missing") from error
    params, known = {}, set()
    for path_, shape in shapes.items():
        names = _names(path_, len(network.multipliers))
        known.update(names)
        parts = []
        for name in names:
            if name not in arrays:
                raise UserError(f"{where}{name} is missing")
            part = arrays[name].astype(np.float32)
            if part.ndim == 4 and len(shape) == 2:
                part = part[:, :, 0, 0]  # 1x1 convolutions are dense layers here
            parts.append(part.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[part.ndim]))
        array = np.concatenate(parts, axis=-1)
        if array.shape != shape:
            raise UserError(f"{where}{names[0]} has the shape {arrays[names[0]].shape}")
        params[path_] = np.ascontiguousarray(array)
    extra = sorted(set(arrays) - known)
    if extra:
        raise UserError(f"{where}they have {extra[0]!a:.80} too")
    return network, flax.traverse_util.unflatten_dict(params)


def has_diffusers_names(network: Any, params: Params) -> bool:
    """Tells whether diffusers has names for all parameters of a network."""
    plain = isinstance(network, UNet) and network.variant == "ddpm"
    if not plain or network.num_classes or network.patch_size > 1:
        return False
    return params["time1"]["kernel"].shape[0] == network.channels  # one time, not two


def to_diffusers(network: UNet, params: Params) -> dict[str, np.ndarray]:
    """Converts parameters to {diffusers' name: array}, the inverse of `from_diffusers`."""
    flat = flax.traverse_util.flatten_dict(params)
    out = {}
    for path in flat:
        names = _names(path, len(network.multipliers))
        for name, part in zip(names, np.split(np.asarray(flat[path]), len(names), axis=-1)):
            part = part.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[part.ndim])
            one_by_one = name.endswith("conv_shortcut.weight")
            out[name] = np.ascontiguousarray(part[..., None, None] if one_by_one else part)
    return out


def _newer(name: str) -> str:
    """Returns today's name of an array in an older file."""
    parts = name.split(".")
    if "attentions" in parts:
        parts = [_OLDER.get(part, part) for part in parts]
    return ".".join(parts)


def _architecture(arrays: dict[str, np.ndarray], size: int) -> UNet:
    """Returns the network whose arrays these are."""
    channels = arrays["conv_in.weight"].shape[0]
    stages = 1 + max(int(n.split(".")[1]) for n in arrays if n.startswith("down_blocks."))
    blocks = 1 + max(int(n.split(".")[3]) for n in arrays if n.startswith("down_blocks.0.resnets."))
    widths = [
        arrays[f"down_blocks.{stage}.resnets.0.conv1.weight"].shape[0] for stage in range(stages)
    ]
    attention = tuple(
        size >> stage
        for stage in range(stages)
        if f"down_blocks.{stage}.attentions.0.to_q.weight" in arrays
    )
    multipliers = tuple(width // channels for width in widths)
    return UNet(channels, multipliers, blocks, attention, "ddpm")


def _shapes(network: UNet, size: int, channels: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns {path in our parameters: shape}."""
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    times = jax.ShapeDtypeStruct((1,), np.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images, times)["params"]
    return {k: v.shape for k, v in flax.traverse_util.flatten_dict(params).items()}


def _names(path: tuple[str, ...], stages: int) -> list[str]:
    """Returns diffusers' names of one of our arrays: three for a `qkv`."""
    *modules, kind = path
    kind = {"kernel": "weight", "scale": "weight", "bias": "bias"}[kind]
    first, *rest = modules
    match = re.fullmatch(r"(down|up)(\d+)_(\w+?)(_attention)?", first)
    if match:
        way, stage, block, attention = match.groups()
        stage = int(stage) if way == "down" else stages - 1 - int(stage)
        top = f"{way}_blocks.{stage}."
        if block == "halve":
            top += "downsamplers.0.conv"
        elif block == "double":
            top += "upsamplers.0.conv"
        else:
            top += f"{'attentions' if attention else 'resnets'}.{block}"
    else:
        top, attention = _TOP.get(first, first), first.endswith("attention")
    if not rest:
        return [f"{top}.{kind}"]
    if rest == ["qkv"]:
        return [f"{top}.to_{part}.{kind}" for part in "qkv"]
    inner = (_ATTENTION if attention else _RES).get(rest[0], rest[0])
    return [f"{top}.{inner}.{kind}"]
