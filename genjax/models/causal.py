"""Causal layers that work on a whole image, on one row, or on one pixel, with the same parameters.

An autoregressive network is written once, as a function of feature maps. Trained, it sees whole
images, [B, H, W, C]. Sampled, it is called for one `Place` after another, and its maps are the row
[B, 1, W, C] or the pixel [B, 1, 1, C] there: a layer that looks at its neighbours keeps what it was
given in the collection "cache" and reads them from there, so that a new pixel costs the work of
that pixel alone. Everything between such layers is pointwise and cannot tell the difference.

Two stages for each row i, called by `genjax.autoregressive.sample`:

  row    once, before its first pixel: what depends on the rows above only (a vertical stack), for
         all columns at once. `keep` hands it to the pixels.
  pixel  once for each column j (for each channel, where channels follow one another).

A feature at (i, j) may depend on pixels before (i, j) in raster order, and on the channels of
(i, j) that its channel group may see. The image itself is not cached by the layers: the sampler
holds it, with zeros around it (`Place.pad`), because its newest pixel changes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.models.layers import pointwise, prefers_matmul


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a network works when it does not work on a whole image.

    Attributes:
      stage: "row" or "pixel".
      row, col: int32 scalars at this level's resolution; col is 0 in the row stage.
      size: (H, W) at this level's resolution.
      pad: zeros around the image above, left and right.
      due: how many further levels of half the resolution have a position of their own here. A
        level that is not due is not computed; its results are those of an earlier place.
    """

    stage: str
    row: jax.Array
    col: jax.Array
    size: tuple[int, int]
    pad: int
    due: int = 0

    def down(self):
        """The same place at half the resolution."""
        height, width = self.size
        return dataclasses.replace(
            self,
            row=self.row // 2,
            col=self.col // 2,
            size=(height // 2, width // 2),
            due=self.due - 1,
        )


def is_row(place):
    return place is not None and place.stage == "row"


def is_pixel(place):
    return place is not None and place.stage == "pixel"


def keep(module, name, value, place):
    """Passes `value` on from the row stage to the pixels of the row.

    `value` is what the row stage (or the whole image) made, None in the pixel stage, where it is
    read at the column.
    """
    if place is None:
        return value
    if place.stage == "row":
        store(module, name, value)
        return value
    row = module.get_variable("cache", name)
    return lax.dynamic_slice_in_dim(row, place.col, 1, axis=2)


def load(module, name, shape, dtype):
    """The array `name` of the cache, zeros at first."""
    if module.has_variable("cache", name):
        return module.get_variable("cache", name)
    return jnp.zeros(shape, dtype)


def store(module, name, value):
    """Sets the array `name` of the cache."""
    module.put_variable("cache", name, value)


def write(module, name, value, place, rows, left=0, right=0):
    """Writes a row or pixel into the newest `rows` rows of a map, kept in the cache.

    Row i is in slot i mod `rows`, between `left` and `right` columns of zeros; rows above the
    image are zeros.

    Args:
      value: [B, 1, W or 1, C].

    Returns:
      (i, col, width) -> [B, 1, width, C]: columns of row i, counted from the first zero.
    """
    shape = (value.shape[0], rows, left + place.size[1] + right, value.shape[-1])
    start = (0, place.row % rows, left + place.col, 0)
    full = lax.dynamic_update_slice(load(module, name, shape, value.dtype), value, start)
    store(module, name, full)

    def read(i, col, width):
        size = (shape[0], 1, width, shape[3])
        return lax.dynamic_slice(full, (0, i % rows, col, 0), size)

    return read


def channel_mask(kind, groups, channels, features):
    """Which inputs of the same pixel an output may see: bool [channels, features].

    Channel k belongs to group k mod `groups`, the colour it is about. Type A (van den Oord et al.
    2016a, section 3.4) sees the groups before its own, type B its own as well.
    """
    source, target = np.arange(channels)[:, None] % groups, np.arange(features)[None] % groups
    return source < target if kind == "A" else source <= target


class CausalConv(nn.Module):
    """A convolution that looks up and to the left.

      y[i, j] = b + sum over a, b of  k[a, b] x[s i + d a - top, s j + d b - left].

    Attributes:
      features: output channels.
      kernel_size: (kh, kw).
      top, left: rows above and columns left of the output's own position that the kernel begins at.
      dilation: d.
      strides: s, 1 or 2; with 2 the output lives at half the resolution.
      mask: "" for a kernel that reaches no later pixel, as `top` and `left` say (whole rows in the
        row stage); "A" or "B" to cut off what comes after its own pixel, and of that pixel what the
        channel groups may not see.
      groups: of channels, 1 or the number of colours.
      weight_norm: the kernel is g v / ||v|| (Salimans & Kingma 2016), g and the bias such that
        the first images, those that `init` sees, give mean 0 and variance `init_scale`^2.
      on_image: the input is the image, which the sampler holds.
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
    def __call__(self, x, place=None):
        """The whole image [B, H, W, C], or at a `place` its row or pixel.

        With strides, None at a place that is between the output's own.
        """
        kh, kw = self.kernel_size
        shape = (kh, kw, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if self.weight_norm:
            kernel = kernel / jnp.sqrt(jnp.sum(kernel**2, (0, 1, 2)) + 1e-12)
        seen = self._seen(x.shape[-1])
        kernel = kernel * jnp.asarray(seen, kernel.dtype)

        if place is None:
            run = lambda k: self._whole(x, k)
        else:
            taps = [(a, b) for a in range(kh) for b in range(kw) if seen[a, b].any()]
            inputs = self._neighbours(x, place, taps)
            run = lambda k: self._matmul(inputs, k, taps)
            if self.strides == 2 and place.due < 1:
                return None
        if self.weight_norm:
            scale, bias = self._data_dependent(run, kernel)
            return run(kernel * scale) + bias.astype(self.dtype)
        y = run(kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y

    def _seen(self, channels):
        """bool [kh, kw, channels, features]: all of the kernel, or what the mask leaves of it."""
        seen = np.ones((*self.kernel_size, channels, self.features), bool)
        if self.mask:
            row, col = self.top // self.dilation, self.left // self.dilation
            seen[row, col] = channel_mask(self.mask, self.groups, channels, self.features)
            seen[row, col + 1 :] = False
            seen[row + 1 :] = False
        return seen

    def _data_dependent(self, run, kernel):
        """(g, b); when they are made, from the images at hand."""
        scale = bias = jnp.zeros(self.features)
        if self.is_initializing():
            y = run(kernel).astype(jnp.float32)
            # The floor is for a channel that says nothing, such as of a constant image.
            spread = jnp.sqrt(jnp.maximum(jnp.var(y, (0, 1, 2)), 1e-4))
            scale = self.init_scale / spread
            bias = -jnp.mean(y, (0, 1, 2)) * scale
        return self.param("scale", lambda _: scale), self.param("bias", lambda _: bias)

    def _whole(self, x, kernel):
        """The image, and its [B, H / s, W / s, features]."""
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

    def _neighbours(self, x, place, taps):
        """What the taps see of the input, [B, 1, 1 or W, taps * C]."""
        if self.kernel_size == (1, 1) and not self.on_image:
            return x
        kh, kw = self.kernel_size
        d, step, width = self.dilation, self.strides, place.size[1]
        count = 1 if place.stage == "pixel" else width // step
        wide = (count - 1) * step + (kw - 1) * d + 1
        if self.on_image:
            corner = (0, place.row + place.pad - self.top, place.col + place.pad - self.left, 0)
            size = (x.shape[0], (kh - 1) * d + 1, wide, x.shape[3])
            rows = lax.split(lax.dynamic_slice(x, corner, size), [1] * size[1], axis=1)[::d]
        else:
            right = max(0, (kw - 1) * d - self.left)
            read = write(self, "input", x, place, self.top + 1, self.left, right)
            rows = [read(place.row + a * d - self.top, place.col, wide) for a in range(kh)]
        last = (count - 1) * step + 1
        parts = [rows[a][:, :, b * d : b * d + last : step] for a, b in taps]
        return jnp.concatenate(parts, -1)

    def _matmul(self, inputs, kernel, taps):
        weights = jnp.concatenate([kernel[a, b] for a, b in taps])
        return jnp.dot(inputs.astype(self.dtype), weights.astype(self.dtype))


def concat_elu(x):
    """elu of x and of -x (Shang et al. 2016), twice the channels."""
    return nn.elu(jnp.concatenate([x, -x], -1))


class Conditioning(nn.Module):
    """A bias for each class, [B, 1, 1, features]; 0 without classes (van den Oord 2016b, eq. 4)."""

    features: int
    num_classes: int = 0
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, label):
        if not self.num_classes:
            return jnp.zeros((), self.dtype)
        table = nn.Embed(self.num_classes, self.features, dtype=self.dtype)
        return table(label)[:, None, None]


class GatedResnet(nn.Module):
    """The gated residual block of PixelCNN++ (Salimans et al. 2017), also PixelSNAIL's.

      x + a sigmoid(b),   (a, b) = conv(dropout(f(conv(f(x)) + W f(aside)))) + V label,

    where f is `concat_elu`.

    Attributes:
      kernel: the fields of both convolutions.
    """

    kernel: dict
    num_classes: int = 0
    dropout: float = 0.0
    weight_norm: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, aside, label, train, place):
        """x [B, H, W, F] and, or None, aside [B, H, W, any] -> [B, H, W, F]."""
        width = x.shape[-1]
        common = {"dtype": self.dtype, "weight_norm": self.weight_norm}
        h = CausalConv(width, **self.kernel, **common)(concat_elu(x), place)
        if aside is not None:
            h += CausalConv(width, **common)(concat_elu(aside), place)
        h = nn.Dropout(self.dropout, deterministic=not train)(concat_elu(h))
        h = CausalConv(2 * width, init_scale=0.1, **self.kernel, **common)(h, place)
        h += Conditioning(2 * width, self.num_classes, self.dtype)(label)
        a, b = jnp.split(h, 2, -1)
        return x + a * nn.sigmoid(b)
