"""DDPM++ U-Nets as Karras et al. 2022 (EDM) publish them: pickles of `SongUNet` modules.

The one place that knows both names. Of their arrays,

  theirs, [out, in, kh, kw] and [out, in]        ours, [kh, kw, in, out] and [in, out]
  NAME.weight, .bias                             NAME/kernel, /bias; of norms /scale, /bias
  BLOCK.qkv, q, k and v of each channel in turn  BLOCK_attention/qkv, all of q, of k, of v
  map_label, sqrt(classes) times one class       classes/embedding, the last one of no class

Their networks of preconditioning "edm" are ours of process "edm" and target "F"; of "vp", process
"vp", target "eps", sigma_data 1. What they are told of augmentation is left out: nothing is
augmented when images are drawn. NCSN++ and ADM networks are other ones, which are not here.
"""

import re

import flax.traverse_util
import numpy as np

from genjax.errors import UserError
from genjax.models.unet import UNet

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


def is_edm(arrays):
    """Whether {dotted name: array} are of such a pickle."""
    return any(name.endswith(_MARK) for name in arrays)


def from_edm(arrays, size, path="given"):
    """(`UNet` of variant "ddpmpp", parameters) of {dotted name: array} of a pickle.

    Args:
      arrays: "ema.model.enc.32x32_conv.weight", and so on; other modules than "ema" are left out.
      size: side of its images.
      path: for the message.

    Raises:
      UserError: they are not of a DDPM++ network.
    """
    where = f"the weights {path} are not of an EDM network in DDPM++ form: "
    prefixes = [name.removesuffix(_MARK) for name in arrays if name.endswith(_MARK)]
    prefix = ("ema." if "ema." in prefixes else prefixes[0]) + "model."
    arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    params, widths, attention, blocks = {}, {}, set(), 0
    for name, array in arrays.items():
        if name.startswith(("map_label.", "map_augment.")):
            continue
        *modules, kind = name.split(".")
        if kind == "resample_filter":
            if array.shape != (1, 1, 2, 2) or np.any(array != 0.25):
                raise UserError(f"{where}it resamples with another filter than [1, 1]")
            continue
        found = _our_name(modules, size)
        if found is None or kind not in ("weight", "bias"):
            raise UserError(f"{where}it has {name!a:.80}")
        if array.ndim not in (1, 2, 4):
            raise UserError(f"{where}{name} has the shape {array.shape}")
        array = np.asarray(array, np.float32)
        norm = "norm" in modules[-1]
        if found[-1] == "qkv":
            array = array.reshape(-1, 3, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
        if array.ndim == 4 and found[-1] in ("skip", "qkv", "out"):
            array = array[:, :, 0, 0]  # 1x1 convolutions are dense layers here
        array = array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])
        kind = "bias" if kind == "bias" else "scale" if norm else "kernel"
        params[(*found, kind)] = np.ascontiguousarray(array)
        in_encoder = re.fullmatch(r"down(\d+)_(\d+)(_attention)?", found[0])
        if in_encoder:
            stage, block, attends = in_encoder.groups()
            blocks = max(blocks, int(block) + 1)
            if attends:
                attention.add(size >> int(stage))
            elif found[1:] == ("conv1",) and kind == "bias":
                widths[int(stage)] = len(array)
    try:
        channels = params[("conv_in", "kernel")].shape[-1]
        multipliers = tuple(widths[stage] // channels for stage in range(len(widths)))
    except KeyError as error:
        raise UserError(f"{where}it has no {error}") from error
    classes = _classes(arrays, where)
    if classes is not None:
        params[("classes", "embedding")] = classes
    network = UNet(
        channels,
        multipliers,
        blocks,
        tuple(sorted(attention, reverse=True)),
        "ddpmpp",
        num_classes=0 if classes is None else len(classes) - 1,
        classes_first=classes is not None,
    )
    return network, flax.traverse_util.unflatten_dict(params)


def _our_name(modules, size):
    """Our module of one of theirs, a tuple of names; None if there is none."""
    if len(modules) == 1:
        return (_TOP[modules[0]],) if modules[0] in _TOP else None
    part, block, *rest = modules[:3]
    found = re.fullmatch(r"(\d+)x\1_(conv|down|up|aux_norm|aux_conv|in0|in1|block\d+)", block)
    if part not in ("enc", "dec") or found is None or len(modules) > 3:
        return None
    side, kind = int(found[1]), found[2]
    stage = (size // max(side, 1)).bit_length() - 1
    if stage < 0 or size >> stage != side:
        return None
    whole = {"conv": "conv_in", "aux_norm": "norm_out", "aux_conv": "conv_out"}
    if kind in whole:
        return None if rest or stage else (whole[kind],)
    if not rest:
        return None
    names = {"down": f"down{stage}_halve", "up": f"up{stage}_double"}
    names |= {"in0": "middle_0", "in1": "middle_1"}
    ours = names.get(kind, f"{'down' if part == 'enc' else 'up'}{stage}_{kind[5:]}")
    if rest[0] in _ATTENTION:
        return ("middle_attention" if kind == "in0" else f"{ours}_attention", _ATTENTION[rest[0]])
    return (ours, _BLOCK[rest[0]]) if rest[0] in _BLOCK else None


def _classes(arrays, where):
    """[classes + 1, channels], what is added for each class and for none; None without classes."""
    if "map_label.weight" not in arrays:
        return None
    weight = np.asarray(arrays["map_label.weight"], np.float32)
    bias = np.asarray(arrays.get("map_label.bias", ()), np.float32)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UserError(f"{where}map_label has the shape {weight.shape}")
    table = np.float32(np.sqrt(weight.shape[1])) * weight.T
    return np.concatenate([table, np.zeros_like(table[:1])]) + bias
