"""Weights of VGG and of the decoders that invert it, for `genjax.models`.

Maps the names in files to ours. The names of a layer conv3_1 are

  Keras's "notop" HDF5          block3_conv1/.../kernel and bias; [kh, kw, in, out]
  torchvision                   features.10.weight, .bias; [out, in, kh, kw], as all below
  naoto0804/pytorch-AdaIN       16.weight, .bias: positions in a Sequential
  npz of `normalised`           conv3_1/weight, /bias
  npz of `distilled`            conv31/weight, /bias; conv31_aux maps to VGG-19's width, unused here

Files may end early, and may contain more (a classifier): only the requested layers are read.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from genjax.errors import UserError
from genjax.models import vgg
from genjax.typing import Float, Params
from genjax.weights.published import VGG as PUBLISHED
from genjax.weights.published import find
from genjax.weights.read import finite_float32, read_arrays


@dataclasses.dataclass(frozen=True)
class LoadedVGG:
    """Weights and the network that they belong to.

    Attributes:
      params: for `VGG.apply({"params": ...})`, float32 NumPy arrays.
      variant, depth, widths: fields of `genjax.models.vgg.VGG`.
      path: their file.
      sha256: of the file's bytes.
    """

    params: Params
    variant: str
    depth: int
    widths: tuple[int, ...]
    path: str
    sha256: str


def load_vgg(
    layers: Sequence[str],
    path: str | os.PathLike | None = None,
    variant: str = "keras",
    depth: int = 19,
) -> LoadedVGG:
    """Reads the weights of the layers up to the deepest of `layers`.

    Args:
      layers: names of activations, see `genjax.models.vgg.VGG`.
      path: a file of any of the kinds above, recognised by its contents; None for the published
        one of `variant` and `depth`, downloaded unless it exists.
      variant: "keras" or "torchvision".
      depth: 16 or 19; ignored if the names in the file tell.

    Raises:
      UserError: the weights cannot be downloaded or read, are of another network, or end too early.
    """
    path = find(PUBLISHED[variant, depth], path)
    arrays, sha256 = read_arrays(path)
    arrays = _plain(arrays)
    naming = _recognize(arrays, depth)
    if naming is None:
        raise UserError(
            f"the weights {path} are not of VGG: conv1_1 is missing under all its names (Keras, "
            "torchvision, conv1_1, conv11)"
        )
    variant, depth, name_of = naming
    convs = [name for kind, name, _ in vgg.path_to(layers, depth) if kind == "conv"]
    widths = vgg.VARIANTS[variant].widths
    if variant == "distilled":  # the students of the five layers have different widths
        widths = _widths_of(arrays, name_of, widths)
    shapes = dict(zip(convs, _shapes(convs, depth, widths)))
    if vgg.VARIANTS[variant].conv0:
        shapes = {"conv0": (1, 1, 3, 3), **shapes}
    params, last = {}, ""
    for ours, shape in shapes.items():
        theirs = name_of(ours)
        if f"{theirs}.weight" not in arrays:
            end = f"end after {last}" if last else f"lack {ours}"
            raise UserError(
                f"the weights {path} {end}, but the requested layers need {convs[-1]}; choose "
                "others, or other weights"
            )
        params[ours] = _layer(arrays, theirs, shape, variant, f"the weights {path}: {theirs}")
        last = ours
    return LoadedVGG(params, variant, depth, tuple(widths), str(path), sha256)


def load_decoder(
    path: str | os.PathLike,
) -> tuple[list[tuple[str, Float[np.ndarray, "3 3 ..."], Float[np.ndarray, "..."]]], str]:
    """Reads the convolutions of a decoder, in its order.

    Args:
      path: a file with names as in the npz files above, or of naoto0804/pytorch-AdaIN
        (decoder.pth).

    Returns:
      ([(name of the layer of VGG that it inverts, kernel [3, 3, in, out], bias [out])], SHA-256).

    Raises:
      UserError: the file cannot be read, or is not a decoder.
    """
    arrays, sha256 = read_arrays(path)
    arrays = _plain(arrays)
    names = [f"conv{b}_{i}" for b in range(1, 6) for i in range(1, 5)]
    if "1.weight" in arrays:
        name_of = {name: str(position) for name, position in _ADAIN_DECODER.items()}.get
    elif any(f"{_short(name)}.weight" in arrays for name in names):
        name_of = _short
    else:
        name_of = str
    layers = []
    for name in reversed(names):
        theirs = name_of(name)
        if theirs is None or f"{theirs}.weight" not in arrays:
            continue
        where = f"the decoder {path}: {theirs}"
        layer = _layer(arrays, theirs, (3, 3, None, None), "decoder", where)
        layers.append((name, layer["kernel"], layer["bias"]))
    if not layers or layers[-1][1].shape[-1] != 3:
        raise UserError(f"{path} is not a decoder: it has no layers that end in 3 channels")
    for (_, above, _), (name, below, _) in zip(layers, layers[1:]):
        if above.shape[-1] != below.shape[-2]:
            raise UserError(f"{path} is not a decoder: {name} does not fit the layer before it")
    return layers, sha256


# Positions of the convolutions in the Sequential of the published AdaIN decoder.
_ADAIN_DECODER = {
    "conv4_1": 1,
    "conv3_4": 5,
    "conv3_3": 8,
    "conv3_2": 11,
    "conv3_1": 14,
    "conv2_2": 18,
    "conv2_1": 21,
    "conv1_2": 25,
    "conv1_1": 28,
}


def _plain(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames arrays to NAME.weight and NAME.bias."""
    out = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        if name.startswith("block") and rest:
            out[f"{first}.{'weight' if array.ndim == 4 else 'bias'}"] = array
        else:
            out[name.replace("/", ".")] = array
    return out


def _recognize(arrays: Iterable[str], depth: int) -> tuple[str, int, Callable[[str], str]] | None:
    """Recognises a file by its name of conv1_1: (variant, depth, our name -> theirs), or None."""
    if "block1_conv1.weight" in arrays:
        depth = 19 if "block3_conv4.weight" in arrays else 16
        return "keras", depth, lambda name: f"block{name[4]}_conv{name[6]}"
    if "features.0.weight" in arrays:
        # features.16 is VGG-19's conv3_4, but VGG-16's pooling after conv3_3, without weights.
        depth = 19 if "features.16.weight" in arrays else 16
        positions = _positions(depth, start=0, step=2)
        return "torchvision", depth, lambda name: f"features.{positions[name]}"
    if "conv1_1.weight" in arrays and "conv0.weight" in arrays:
        return "normalised", 19, str
    if "conv11.weight" in arrays and "conv0.weight" in arrays:
        return "distilled", 19, _short
    if "0.weight" in arrays and "2.weight" in arrays:
        # Each has padding, convolution and ReLU; conv0 comes first, without the other two.
        positions = {"conv0": 0, **_positions(19, start=2, step=3)}
        return "normalised", 19, lambda name: str(positions[name])
    return None


def _positions(depth: int, start: int, step: int) -> dict[str, int]:
    """Returns {conv3_1: position} in a Sequential with `step` modules for each convolution.

    A pooling is one module.
    """
    position, positions = start, {}
    for kind, name, _ in vgg.path_to(["pool5"], depth):
        if kind == "conv":
            positions[name] = position
        position += step if kind == "conv" else 1
    return positions


def _short(name: str) -> str:
    return name.replace("_", "")


def _widths_of(
    arrays: dict[str, np.ndarray], name_of: Callable[[str], str], usual: Sequence[int]
) -> list[int]:
    """Returns the widths of the five blocks; the usual one of a block that the file lacks."""
    kernels = [arrays.get(f"{name_of(f'conv{block}_1')}.weight") for block in range(1, 6)]
    return [n if x is None or x.ndim != 4 else len(x) for n, x in zip(usual, kernels)]


def _shapes(
    convs: Sequence[str], depth: int, widths: Sequence[int]
) -> Iterator[tuple[int, int, int, int]]:
    """Yields the shape [kh, kw, in, out] of each convolution's kernel."""
    channels = 3
    for _, name, block in vgg.path_to(convs[-1:], depth):
        if name in convs:
            yield 3, 3, channels, widths[block]
            channels = widths[block]


def _layer(
    arrays: dict[str, np.ndarray],
    name: str,
    shape: tuple[int | None, ...],
    variant: str,
    where: str,
) -> dict[str, np.ndarray]:
    """Returns {"kernel", "bias"} of one convolution.

    Args:
      arrays: {name: array} of the file.
      name: the convolution's name in it.
      shape: of the kernel; None for a length that may be any.
      variant: "keras" where the kernel has Keras's layout.
      where: the start of messages.

    Raises:
      UserError: an array is missing, not finite, not of floats, or has another shape.
    """
    kernel, bias = arrays[f"{name}.weight"], arrays.get(f"{name}.bias")
    if kernel.ndim == 4 and variant != "keras":
        kernel = kernel.transpose(2, 3, 1, 0)
    layer = {}
    for ours, what, array, expected in (
        ("kernel", "weight", kernel, shape),
        ("bias", "bias", bias, (kernel.shape[-1:] if kernel.ndim else (None,))),
    ):
        if array is None:
            raise UserError(f"{where} has no bias")
        fits = len(array.shape) == len(expected) and all(
            e in (None, n) for e, n in zip(expected, array.shape)
        )
        if not fits:
            raise UserError(
                f"{where}: its {what} is {array.shape}, not {expected}: these are weights of "
                "another network"
            )
        layer[ours] = np.ascontiguousarray(finite_float32(array, f"{where}: its {what}"))
    return layer
