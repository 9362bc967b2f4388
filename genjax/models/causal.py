"""Causal layers that work on full images, on one row, or on one pixel, with the same parameters.

An autoregressive network is written once, as a function of feature maps. In training it takes full
images, [B, H, W, C]. In sampling it is called for one `Position` after another, and its feature
maps are the row [B, 1, W, C] or the pixel [B, 1, 1, C] at that position: a layer that depends on
neighbouring positions stores its inputs in the collection "cache" and reads the neighbours from
there, so that a new pixel costs the computation of that pixel alone. All other layers are pointwise
and work on either form unchanged.

There are two stages for each row i, called by `genjax.autoregressive.sample`:

  row    once, before its first pixel: whatever depends on the rows above only (a vertical stack),
         for all columns at once. `pass_to_pixels` stores it for the pixels.
  pixel  once for each column j (once for each channel, if channels follow one another).

A feature at (i, j) may depend on pixels before (i, j) in raster order, and on those channels of
(i, j) that its channel group may depend on. The layers do not cache the image itself: the sampler
holds it, with zeros around it (`Position.pad`), because its newest pixel changes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.models.layers import Dropout, pointwise, prefers_matmul
from genjax.numerics import nonzero
from genjax.typing import Array, Bool, Float, Int

# --- Positions ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a network works if it does not work on a full image.

    Attributes:
      stage: "row" or "pixel".
      row, col: at the resolution of the layer; col is 0 in the row stage.
      size: (H, W) at the resolution of the layer.
      pad: zeros around the image above, left and right.
      coarser_levels: how many further levels, each of half the resolution, have a position of their
        own here. The others are not computed: their results are those of an earlier position.
    """

    stage: str
    row: Int[Array, ""]
    col: Int[Array, ""]
    size: tuple[int, int]
    pad: int
    coarser_levels: int = 0

    def at_half_resolution(self) -> "Position":
        """Returns the same position at half the resolution."""
        height, width = self.size
        return dataclasses.replace(
            self,
            row=self.row // 2,
            col=self.col // 2,
            size=(height // 2, width // 2),
            coarser_levels=self.coarser_levels - 1,
        )

    @property
    def raster_index(self) -> Int[Array, ""]:
        """Number of pixels before this one."""
        return self.row * self.size[1] + self.col


def is_row(position: Position | None) -> bool:
    """Tells whether a network works on a row."""
    return position is not None and position.stage == "row"


def is_pixel(position: Position | None) -> bool:
    """Tells whether a network works on a pixel."""
    return position is not None and position.stage == "pixel"


# --- The cache ------------------------------------------------------------------------------------


def load(module: nn.Module, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Returns the array `name` of the cache of a module; zeros before it is first stored."""
    if module.has_variable("cache", name):
        return module.get_variable("cache", name)
    return jnp.zeros(shape, dtype)


def store(module: nn.Module, name: str, value: Array) -> None:
    """Sets the array `name` of the cache of a module."""
    module.put_variable("cache", name, value)


def pass_to_pixels(
    module: nn.Module, name: str, value: Float[Array, "b h w c"] | None, position: Position | None
) -> Float[Array, "b _ _ c"]:
    """Stores the result of the row stage, and returns its column in the pixel stage.

    Args:
      module: whose cache it is.
      name: in the cache.
      value: what the row stage or the full image computed; None in the pixel stage.
      position: None for the full image, which is returned.
    """
    if position is None:
        return value
    if position.stage == "row":
        store(module, name, value)
        return value
    row = module.get_variable("cache", name)
    return lax.dynamic_slice_in_dim(row, position.col, 1, axis=2)


def cache_rows(
    module: nn.Module,
    name: str,
    value: Float[Array, "b 1 w c"],
    position: Position,
    rows: int,
    left: int = 0,
    right: int = 0,
) -> Callable:
    """Writes a row or a pixel into the cache of the newest `rows` rows of a feature map.

    Row i is in slot i mod `rows`, between `left` and `right` columns of zeros; rows above the
    image are zeros.

    Returns:
      A function (i, col, width) -> [B, 1, width, C]: columns of row i, counted from the first zero.
    """
    shape = (value.shape[0], rows, left + position.size[1] + right, value.shape[-1])
    start = (0, position.row % rows, left + position.col, 0)
    full = lax.dynamic_update_slice(load(module, name, shape, value.dtype), value, start)
    store(module, name, full)

    def read(i, col, width):
        size = (shape[0], 1, width, shape[3])
        return lax.dynamic_slice(full, (0, i % rows, col, 0), size)

    return read


# --- Convolutions ---------------------------------------------------------------------------------


def channel_mask(
    kind: str, groups: int, channels: int, features: int
) -> Bool[np.ndarray, "{channels} {features}"]:
    """Returns which input channels of its own pixel each output channel may depend on.

    Channel k belongs to group k mod `groups`, the colour that it describes. An output of type A
    (van den Oord et al. 2016a, section 3.4) depends on the groups before its own, one of type B on
    its own as well.
    """
    source, target = np.arange(channels)[:, None] % groups, np.arange(features)[None] % groups
    return source < target if kind == "A" else source <= target


class CausalConv(nn.Module):
    """A convolution over positions above and to the left.

      y[i, j] = b + sum over a, b of  k[a, b] x[s i + d a - top, s j + d b - left].

    Attributes:
      features: output channels.
      kernel_size: (kh, kw).
      top, left: rows above and columns left of the output's position at which the kernel starts.
      dilation: d.
      strides: s, 1 or 2; with 2 the output has half the resolution.
      mask: "" for a kernel that covers no later pixel by its `top` and `left` (full rows in the row
        stage); "A" or "B" to mask what comes after its own pixel, and of that pixel the channel
        groups that type excludes.
      groups: of channels, 1 or the number of colours.
      use_bias: whether there is a bias; with `weight_norm` there always is.
      weight_norm: the kernel is g v / ||v|| (Salimans & Kingma 2016), with g and the bias such that
        the outputs on the images that `init` is called with have mean 0 and standard deviation
        `init_scale`.
      init_scale: see `weight_norm`.
      on_image: whether the input is the image, which the sampler holds.
      dtype: of the computation; parameters are float32.
      kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0
    dilation: int = 1
    strides: int = 1
    mask: str = ""
    groups: int = 1
    use_bias: bool = True
    weight_norm: bool = False
    init_scale: float = 1.0
    on_image: bool = False
    dtype: str = "float32"
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], position: Position | None = None
    ) -> Float[Array, "b rows columns features"] | None:
        """Convolves the full image, or at a `position` its row or pixel.

        Returns:
          The outputs; with strides, None at a position that none of the outputs has.
        """
        kh, kw = self.kernel_size
        shape = (kh, kw, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if self.weight_norm:
            squares = nonzero(jnp.sum(kernel**2, (0, 1, 2)), 1e-12)
            kernel = kernel / jnp.sqrt(squares + 1e-12)
        used = self._kernel_mask(x.shape[-1])
        kernel = kernel * jnp.asarray(used, kernel.dtype)

        if position is None:
            run = lambda k: self._full_image(x, k)
        else:
            taps = [(a, b) for a in range(kh) for b in range(kw) if used[a, b].any()]
            inputs = self._tap_inputs(x, position, taps)
            run = lambda k: self._matmul(inputs, k, taps)
            if self.strides == 2 and position.coarser_levels < 1:
                return None
        if self.weight_norm:
            scale, bias = self._data_dependent(run, kernel)
            return run(kernel * scale) + bias.astype(self.dtype)
        y = run(kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y

    def _kernel_mask(self, channels):
        """Returns the elements of the kernel that count: bool [kh, kw, channels, features]."""
        used = np.ones((*self.kernel_size, channels, self.features), bool)
        if self.mask:
            row, col = self.top // self.dilation, self.left // self.dilation
            used[row, col] = channel_mask(self.mask, self.groups, channels, self.features)
            used[row, col + 1 :] = False
            used[row + 1 :] = False
        return used

    def _data_dependent(self, run, kernel):
        """Returns (g, b); `init` computes them from its images."""
        scale = bias = jnp.zeros(self.features)
        if self.is_initializing():
            y = run(kernel).astype(jnp.float32)
            # The floor is for a channel without variance, for example of a constant image.
            spread = jnp.sqrt(jnp.maximum(jnp.var(y, (0, 1, 2)), 1e-4))
            scale = self.init_scale / spread
            bias = -jnp.mean(y, (0, 1, 2)) * scale
        return self.param("scale", lambda _: scale), self.param("bias", lambda _: bias)

    def _full_image(self, x, kernel):
        """Convolves [B, H, W, C] to [B, H / s, W / s, features]."""
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.kernel_size == (1, 1) and self.strides == 1 and prefers_matmul(x):
            return pointwise(x, kernel[0, 0])
        pads = []
        for size, length, low in zip(x.shape[1:3], kernel.shape, (self.top, self.left)):
            reach = (-(-size // self.strides) - 1) * self.strides + (length - 1) * self.dilation + 1
            pads.append((low, reach - low - size))
        return lax.conv_general_dilated(
            x,
            kernel,
            (self.strides,) * 2,
            pads,
            rhs_dilation=(self.dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def _tap_inputs(self, x, position, taps):
        """Concatenates the input of every tap: [B, 1, 1 or W, taps * C]."""
        if self.kernel_size == (1, 1) and not self.on_image:
            return x
        kh, kw = self.kernel_size
        d, step, width = self.dilation, self.strides, position.size[1]
        count = 1 if position.stage == "pixel" else width // step
        wide = (count - 1) * step + (kw - 1) * d + 1
        if self.on_image:
            top, left = position.pad - self.top, position.pad - self.left
            corner = (0, position.row + top, position.col + left, 0)
            size = (x.shape[0], (kh - 1) * d + 1, wide, x.shape[3])
            rows = lax.split(lax.dynamic_slice(x, corner, size), [1] * size[1], axis=1)[::d]
        else:
            right = max(0, (kw - 1) * d - self.left)
            read = cache_rows(self, "input", x, position, self.top + 1, self.left, right)
            rows = [read(position.row + a * d - self.top, position.col, wide) for a in range(kh)]
        last = (count - 1) * step + 1
        parts = [rows[a][:, :, b * d : b * d + last : step] for a, b in taps]
        return jnp.concatenate(parts, -1)

    def _matmul(self, inputs, kernel, taps):
        weights = jnp.concatenate([kernel[a, b] for a, b in taps])
        return jnp.dot(inputs.astype(self.dtype), weights.astype(self.dtype))


# --- Blocks ---------------------------------------------------------------------------------------


def concat_elu(x: Float[Array, "*shape c"]) -> Float[Array, "*shape features"]:
    """Concatenates elu of x and of -x (Shang et al. 2016), twice the channels."""
    return nn.elu(jnp.concatenate([x, -x], -1))


class Conditioning(nn.Module):
    """A bias for each class, [B, 1, 1, features]; 0 without classes (van den Oord 2016b, eq. 4).

    Attributes:
      features: channels.
      num_classes: 0 for an unconditional network.
      dtype: of the computation; parameters are float32.
    """

    features: int
    num_classes: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, label: Int[Array, " b"] | None) -> Float[Array, "..."]:
        """Returns the biases of labels."""
        if not self.num_classes:
            return jnp.zeros((), self.dtype)
        table = nn.Embed(self.num_classes, self.features, dtype=self.dtype)
        return table(label)[:, None, None]


class GatedResnet(nn.Module):
    """The gated residual block of PixelCNN++ (Salimans et al. 2017), also PixelSNAIL's.

      x + a sigmoid(b),   (a, b) = conv(dropout(f(conv(f(x)) + W f(auxiliary)))) + V label,

    where f is `concat_elu`.

    Attributes:
      kernel: the fields of both convolutions.
      num_classes: 0 for an unconditional network.
      dropout: probability.
      weight_norm: of both convolutions.
      dtype: of the computation; parameters are float32.
    """

    kernel: Mapping[str, Any]
    num_classes: int = 0
    dropout: float = 0.0
    weight_norm: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w f"],
        auxiliary: Float[Array, "b h w a"] | None,
        label: Int[Array, " b"] | None,
        train: bool,
        position: Position | None,
    ) -> Float[Array, "b h w f"]:
        """Returns feature maps of the shape of x."""
        width = x.shape[-1]
        common = {"dtype": self.dtype, "weight_norm": self.weight_norm}
        h = CausalConv(width, **self.kernel, **common)(concat_elu(x), position)
        if auxiliary is not None:
            h += CausalConv(width, **common)(concat_elu(auxiliary), position)
        h = Dropout(self.dropout, deterministic=not train)(concat_elu(h))
        h = CausalConv(2 * width, init_scale=0.1, **self.kernel, **common)(h, position)
        h += Conditioning(2 * width, self.num_classes, self.dtype)(label)
        a, b = jnp.split(h, 2, -1)
        return x + a * nn.sigmoid(b)


def remat_outside_sampling(
    module: type[nn.Module], remat: bool, position: Position | None, **options: Any
) -> type[nn.Module]:
    """Returns the class `module`, with `remat` as one whose gradients compute it again.

    Not at a `position`: sampling takes no gradients. Instances need a name, since linen would name
    those of the new class otherwise.
    """
    return nn.remat(module, **options) if remat and position is None else module
