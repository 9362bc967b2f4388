"""Weights of VGG and of the decoders that invert it, as `genjax.models` wants them.

The one place that knows everyone's names. Of a layer conv3_1,

  Keras's "notop" HDF5          block3_conv1/.../kernel and bias; [kh, kw, in, out]
  torchvision                   features.10.weight, .bias; [out, in, kh, kw], as all below
  naoto0804/pytorch-AdaIN       16.weight, .bias: places in a Sequential
  npz of `normalised`           conv3_1/weight, /bias
  npz of `distilled`            conv31/weight, /bias; conv31_aux maps to VGG-19's width, unused here

Files may end early, and may hold more (a classifier): only the layers asked for are looked at.
"""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.models import vgg
from genjax.weights.published import VGG as PUBLISHED
from genjax.weights.published import find
from genjax.weights.read import read_arrays


@dataclasses.dataclass(frozen=True)
class LoadedVGG:
    """Weights and what they belong to.

    Attributes:
      params: for `VGG.apply({"params": ...})`, float32 NumPy arrays.
      variant, depth, widths: of `genjax.models.vgg.VGG`.
      path: where they come from.
      sha256: of the file's bytes.
    """

    params: dict
    variant: str
    depth: int
    widths: tuple[int, ...]
    path: str
    sha256: str


def load_vgg(layers, path=None, variant="keras", depth=19):
    """Reads the weights of the layers up to the deepest of `layers`.

    Args:
      layers: names of activations, see `genjax.models.vgg.VGG`.
      path: a file of any of the kinds above, which says itself what it is; None for the published
        one of `variant` and `depth`, downloaded if it is not there yet.
      variant: "keras" or "torchvision".
      depth: 16 or 19; of a file whose names do not tell.

    Raises:
      UserError: they cannot be had or read, are of another network, or end too early.
    """
    path = find(PUBLISHED[variant, depth], path)
    arrays, sha256 = read_arrays(path)
    arrays = _plain(arrays)
    found = _recognize(arrays, depth)
    if found is None:
        raise UserError(
            f"the weights {path} are not of VGG: conv1_1 is missing under all its names (Keras, "
            "torchvision, conv1_1, conv11)"
        )
    variant, depth, name_of = found
    convs = [name for kind, name, _ in vgg.path_to(layers, depth) if kind == "conv"]
    block_widths = vgg.VARIANTS[variant].widths
    if variant == "distilled":  # the students of the five layers are not all as wide
        block_widths = _widths_of(arrays, name_of, block_widths)
    widths = dict(zip(convs, _shapes(convs, depth, block_widths)))
    if vgg.VARIANTS[variant].conv0:
        widths = {"conv0": (1, 1, 3, 3), **widths}
    params = {}
    there = ""
    for ours, shape in widths.items():
        theirs = name_of(ours)
        if f"{theirs}.weight" not in arrays:
            end = f"end after {there}" if there else f"lack {ours}"
            raise UserError(
                f"the weights {path} {end}, but the layers asked for need {convs[-1]}; choose "
                "others, or other weights"
            )
        params[ours] = _layer(arrays, theirs, shape, variant, f"the weights {path}: {theirs}")
        there = ours
    return LoadedVGG(params, variant, depth, tuple(block_widths), str(path), sha256)


def load_decoder(path):
    """The convolutions of a decoder, in its order.

    Args:
      path: a file with names as the npz files above, or of naoto0804/pytorch-AdaIN (decoder.pth).

    Returns:
      ([(name of the layer of VGG that it undoes, kernel [3, 3, in, out], bias [out])], SHA-256).

    Raises:
      UserError: it cannot be read, or is not a decoder.
    """
    arrays, sha256 = read_arrays(path)
    arrays = _plain(arrays)
    names = [f"conv{b}_{i}" for b in range(1, 6) for i in range(1, 5)]
    if "1.weight" in arrays:
        name_of = {name: str(place) for name, place in _ADAIN_DECODER.items()}.get
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


# Places of the convolutions in the Sequential of the published AdaIN decoder.
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


def _plain(arrays):
    """Arrays under the names NAME.weight and NAME.bias."""
    out = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        if name.startswith("block") and rest:
            out[f"{first}.{'weight' if array.ndim == 4 else 'bias'}"] = array
        else:
            out[name.replace("/", ".")] = array
    return out


def _recognize(arrays, depth):
    """(variant, depth, our name -> theirs) by what conv1_1 is called; None if nothing is."""
    if "block1_conv1.weight" in arrays:
        depth = 19 if "block3_conv4.weight" in arrays else 16
        return "keras", depth, lambda name: f"block{name[4]}_conv{name[6]}"
    if "features.0.weight" in arrays:
        # The widths tell: features.16 is VGG-19's conv3_4 and VGG-16's first pooling after it.
        depth = 19 if "features.16.weight" in arrays else 16
        places = _places(depth, start=0, step=2)
        return "torchvision", depth, lambda name: f"features.{places[name]}"
    if "conv1_1.weight" in arrays and "conv0.weight" in arrays:
        return "normalised", 19, str
    if "conv11.weight" in arrays and "conv0.weight" in arrays:
        return "distilled", 19, _short
    if "0.weight" in arrays and "2.weight" in arrays:
        # Padding, convolution, ReLU of each; conv0 comes first, without the two.
        places = {"conv0": 0, **_places(19, start=2, step=3)}
        return "normalised", 19, lambda name: str(places[name])
    return None


def _places(depth, start, step):
    """{conv3_1: its place in a Sequential with `step` modules a convolution and 1 a pooling}."""
    place, places = start, {}
    for kind, name, _ in vgg.path_to(["pool5"], depth):
        if kind == "conv":
            places[name] = place
        place += step if kind == "conv" else 1
    return places


def _short(name):
    return name.replace("_", "")


def _widths_of(arrays, name_of, usual):
    found = [arrays.get(f"{name_of(f'conv{block}_1')}.weight") for block in range(1, 6)]
    return [n if x is None or x.ndim != 4 else len(x) for n, x in zip(usual, found)]


def _shapes(convs, depth, widths):
    channels = 3
    for _, name, block in vgg.path_to(convs[-1:], depth):
        if name in convs:
            yield 3, 3, channels, widths[block]
            channels = widths[block]


def _layer(arrays, name, shape, variant, where):
    """{"kernel", "bias"} of one convolution, checked."""
    kernel, bias = arrays[f"{name}.weight"], arrays.get(f"{name}.bias")
    if kernel.ndim == 4 and variant != "keras":
        kernel = kernel.transpose(2, 3, 1, 0)
    for what, array, expected in (
        ("weight", kernel, shape),
        ("bias", bias, (kernel.shape[-1:] if kernel.ndim else (None,))),
    ):
        if array is None:
            raise UserError(f"{where} has no bias")
        fits = len(array.shape) == len(expected) and all(
            e in (None, n) for e, n in zip(expected, array.shape)
        )
        if not fits or array.dtype != np.float32:
            raise UserError(
                f"{where}: its {what} is {array.dtype} {array.shape}, not float32 {expected}: "
                "these are weights of another network"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{where}: its {what} is not finite")
    return {"kernel": np.ascontiguousarray(kernel), "bias": np.ascontiguousarray(bias)}
