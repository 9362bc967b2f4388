"""The convolutions of VGG-16 and VGG-19 (Simonyan & Zisserman 2015), for perceptual losses.

One pass returns the requested activations and goes no deeper than the last of them. Published
weights differ in their preprocessing, padding and widths, which a `Variant` states; every network
of this module takes RGB in [0, 1].

  keras       BGR in 0..255, minus the mean of ImageNet: the original Caffe model
  torchvision RGB, minus the mean, divided by the standard deviation; trained separately
  normalised  keras's, rescaled so that activations average 1 (Gatys et al. 2015); its first layer,
              conv0, is a 1x1 convolution that does keras's preprocessing; pads by reflection
  distilled   a student of `normalised` with a quarter of its widths (Wang et al. 2020)
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from genjax.models.layers import average_pool_2x2, max_pool
from genjax.typing import AnyArray, Array, Float

# Convolutions of each block; a pooling follows each.
BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)

BGR_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, 0..255
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Our names of paddings -> those of `jnp.pad`.
PADDINGS = {"zero": "constant", "replicate": "edge", "reflect": "reflect"}


# --- Variants of the weights ----------------------------------------------------------------------


def caffe(images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Maps RGB in [0, 1] to BGR in 0..255, minus the mean."""
    return images[..., ::-1] * 255.0 - jnp.asarray(BGR_MEAN, images.dtype)


def standardized(images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Maps RGB in [0, 1] to RGB minus the mean, divided by the standard deviation."""
    mean, std = (jnp.asarray(x, images.dtype) for x in (RGB_MEAN, RGB_STD))
    return (images - mean) / std


def unchanged(images: Float[AnyArray, "b h w 3"]) -> Float[AnyArray, "b h w 3"]:
    """Returns the images themselves, for weights that contain the preprocessing."""
    return images


@dataclasses.dataclass(frozen=True)
class Variant:
    """Preprocessing and architecture of a set of weights.

    Attributes:
      preprocess: RGB in [0, 1], [B, H, W, 3] -> the input of the first layer.
      conv0: whether the first layer is a 1x1 convolution before the first block.
      padding: with which the network was trained; a name in `PADDINGS`.
      widths: channels of the five blocks.
    """

    preprocess: Callable[[Array], Array]
    conv0: bool = False
    padding: str = "zero"
    widths: tuple[int, ...] = WIDTHS


VARIANTS = {
    "keras": Variant(caffe),
    "torchvision": Variant(standardized),
    "normalised": Variant(unchanged, True, "reflect"),
    "distilled": Variant(unchanged, True, "reflect", (16, 32, 64, 128, 128)),
}


# --- The network ----------------------------------------------------------------------------------

POOLS = {"max": max_pool, "avg": average_pool_2x2}


class VGG(nn.Module):
    """The network from images to named activations.

    Attributes:
      layers: names such as "relu3_1", the activation, which Keras calls "block3_conv1"; "conv3_1",
        the same before the ReLU; "pool3", in Keras "block3_pool".
      depth: 16 or 19.
      variant: a name in `VARIANTS`.
      pool: a name in `POOLS`.
      padding: a name in `PADDINGS`; "" for the variant's own.
      widths: channels of the five blocks; () for the variant's.
      dtype: of the activations; None for that of the images.
    """

    layers: tuple[str, ...]
    depth: int = 19
    variant: str = "keras"
    pool: str = "max"
    padding: str = ""
    widths: tuple[int, ...] = ()
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[AnyArray, "b h w 3"]) -> dict[str, Float[Array, "b _ _ _"]]:
        """Computes activations of images, RGB in [0, 1].

        Returns:
          {name as in `layers`: [B, H // s, W // s, C]}, s = 1, 2, 4, 8, 16 in block 1 to 5.

        Raises:
          ValueError: an unknown layer, or images too small to reach the deepest one.
        """
        wanted = {name: canonical(name, self.depth) for name in self.layers}
        variant = VARIANTS[self.variant]
        padding, widths = self.padding or variant.padding, self.widths or variant.widths
        activations = {}
        x = variant.preprocess(images)
        if variant.conv0:
            x = Conv3x3(3, padding, size=1, dtype=self.dtype, name="conv0")(x)
        for kind, name, block in path_to(wanted.values(), self.depth):
            if kind == "pool":
                if min(x.shape[1:3]) < 2:
                    raise ValueError(f"images {images.shape[1:3]} are too small for {name}")
                x = activations[name] = POOLS[self.pool](x)
                continue
            if padding == "reflect" and min(x.shape[1:3]) < 2:
                raise ValueError(f"images {images.shape[1:3]} are too small for {name}")
            x = Conv3x3(widths[block], padding, dtype=self.dtype, name=name)(x)
            activations[name] = x
            x = activations[name.replace("conv", "relu")] = nn.relu(x)
        return {name: activations[ours] for name, ours in wanted.items()}


class Conv3x3(nn.Module):
    """A convolution that keeps height and width.

    Attributes:
      features: channels of the output.
      padding: a name in `PADDINGS`.
      size: of the kernel, odd.
      dtype: of the computation; None for that of the input.
    """

    features: int
    padding: str
    size: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[AnyArray, "b h w c"]) -> Float[Array, "b h w features"]:
        """Convolves x and adds the bias."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        # He initialisation: activations of random weights keep their size.
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        edge = (self.size // 2,) * 2
        if self.padding != "zero" and self.size > 1:
            x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)), mode=PADDINGS[self.padding])
            edge = (0, 0)
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), (edge, edge), None, None, numbers) + bias


# --- Names and geometry of layers -----------------------------------------------------------------


def canonical(name: str, depth: int = 19) -> str:
    """Returns our name of a layer, "conv3_1", "relu3_1" or "pool3", given ours or Keras's.

    Raises:
      ValueError: no layer has this name.
    """
    keras = re.fullmatch(r"block(\d)_(conv|pool)(\d?)", name)
    if keras:
        block, kind, number = keras.groups()
        ours = f"relu{block}_{number}" if kind == "conv" else f"pool{block}"
    else:
        ours = name
    match = re.fullmatch(r"(?:(?:conv|relu)([1-5])_([1-4])|pool([1-5]))", ours)
    if not match or match[1] and int(match[2]) > BLOCKS[depth][int(match[1]) - 1]:
        raise ValueError(f"'{name}' is not a layer of VGG-{depth}")
    return ours


def path_to(layers: Iterable[str], depth: int = 19) -> list[tuple[str, str, int]]:
    """Lists the layers up to the deepest of `layers`: ("conv" or "pool", name, block from 0)."""
    every = []
    for block, count in enumerate(BLOCKS[depth]):
        convs = [("conv", f"conv{block + 1}_{i + 1}", block) for i in range(count)]
        every += [*convs, ("pool", f"pool{block + 1}", block)]
    names = {canonical(name, depth).replace("relu", "conv") for name in layers}
    last = max(i for i, (_, name, _) in enumerate(every) if name in names)
    return every[: last + 1]


def reach(layers: Iterable[str], depth: int = 19) -> tuple[int, int]:
    """Returns the stride of the deepest layer and a radius that bounds all receptive fields.

    Activation i of a layer of stride s depends on no pixel outside
    [s i - radius, s i + s - 1 + radius].
    """
    stride, radius = 1, 0
    for kind, _, _ in path_to(layers, depth):
        if kind == "pool":
            stride *= 2
        else:
            radius += stride
    return stride, radius
