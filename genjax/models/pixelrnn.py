"""PixelRNN with Row and Diagonal LSTMs (van den Oord et al. 2016a, arXiv:1601.06759)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import CausalConv, Conditioning, is_row, keep, load, store, write


class PixelRnn(nn.Module):
    """A 7x7 masked convolution, residual LSTM layers, two pointwise ones (sections 3.2 to 3.6).

    Attributes:
      num_outputs: channels of the output.
      kind: "row" or "diagonal".
      features: h, units of an LSTM; the layers between have 2 h. A multiple of `groups`.
      num_layers: of LSTMs.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
    """

    num_outputs: int
    kind: str = "diagonal"
    features: int = 32
    num_layers: int = 7
    groups: int = 1
    num_classes: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, label=None, train=False, place=None):
        """x [B, H, W, C] -> float32 [B, H, W, num_outputs]; of one pixel at a `place`."""
        conv = functools.partial(CausalConv, groups=self.groups, dtype=self.dtype)
        h, width = None, 2 * self.features
        if not is_row(place):
            first = conv(width, (4, 7), top=3, left=3, mask="A", on_image=True, name="first")
            h = first(x, place)
            h += Conditioning(width, self.num_classes, self.dtype, name="class")(label)
        layer = {"row": RowLstm, "diagonal": DiagonalBiLstm}[self.kind]
        for n in range(self.num_layers):
            y = layer(self.features, self.groups, self.dtype, name=f"lstm{n}")(h, x, place)
            if not is_row(place):
                h += conv(width, mask="B", name=f"up{n}")(y, place)
        if is_row(place):
            return None
        h = nn.relu(conv(width, mask="B", name="hidden")(nn.relu(h), place))
        return conv(self.num_outputs, mask="B", name="out")(h, place).astype(jnp.float32)


class RowLstm(nn.Module):
    """Row by row (section 3.2): a 1x3 convolution of the state of the row above.

    Attributes:
      features: h.
    """

    features: int
    groups: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, image, place):
        """[B, H, W, C] -> [B, H, W, h]; `image` is not looked at."""
        if is_row(place):
            return None
        width = self.features
        into = CausalConv(
            4 * width, (1, 2), 0, 1, mask="B", groups=self.groups, dtype=self.dtype, name="in"
        )
        gates = into(x, place)
        shape = (3 * width, 4 * width)
        kernel = self.param("state", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        if place is None:

            def row(carry, gates):
                h, c = carry
                p = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
                around = jnp.concatenate([p[:, :-2], p[:, 1:-1], p[:, 2:]], -1)
                h, c = lstm(gates + around @ kernel, c)
                return (h, c), h

            zero = jnp.zeros((x.shape[0], x.shape[2], width), gates.dtype)
            return jnp.moveaxis(lax.scan(row, (zero, zero), jnp.moveaxis(gates, 1, 0))[1], 0, 1)
        zero = jnp.zeros((x.shape[0], 1, 1, 2 * width), gates.dtype)
        read = write(self, "state", zero, place, 2, 1, 1)
        above = read(place.row - 1, place.col, 3)
        around = above[..., :width].reshape(x.shape[0], 1, 1, 3 * width)
        h, c = lstm(gates + around @ kernel, above[:, :, 1:2, width:])
        write(self, "state", jnp.concatenate([h, c], -1), place, 2, 1, 1)
        return h


class DiagonalBiLstm(nn.Module):
    """Along the diagonals, from both sides (section 3.3): all that is above and left is seen.

    The state of (i, j) comes from (i, j - 1) and (i - 1, j); of the other side, from (i, j + 1) and
    (i - 1, j), then moved down a row. That side also sees the image, without which the last pixel
    of a row would be unseen from the beginning of the next one.

    Attributes:
      features: h, the sum of both sides.
    """

    features: int
    groups: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, image, place):
        """x [B, H, W, C], image [B, H, W, any] -> [B, H, W, h]."""
        width = self.features
        masked = {"mask": "B", "groups": self.groups, "dtype": self.dtype}
        kernels = []
        for name in ("state_left", "state_right"):
            kernel = self.param(name, nn.initializers.lecun_normal(), (2 * width, 4 * width))
            kernels.append(kernel.astype(self.dtype))
        into_right = CausalConv(4 * width, dtype=self.dtype, name="in_right")

        left = right = None
        if not is_row(place):
            gates = CausalConv(4 * width, **masked, name="in_left")(x, place)
        if place is None:
            left = diagonals(gates, kernels[0])
            seen = jnp.concatenate([x, image.astype(x.dtype)], -1)[:, :, ::-1]
            right = diagonals(into_right(seen), kernels[1])[:, :-1, ::-1]
            right = jnp.pad(right, ((0, 0), (1, 0), (0, 0), (0, 0)))
        elif place.stage == "pixel":
            zero = jnp.zeros((x.shape[0], 1, 1, 2 * width), gates.dtype)
            read = write(self, "state", zero, place, 2, 1)
            above, before = read(place.row - 1, place.col + 1, 1), read(place.row, place.col, 1)
            both = jnp.concatenate([above[..., :width], before[..., :width]], -1)
            left, c = lstm(gates + both @ kernels[0], before[..., width:])
            write(self, "state", jnp.concatenate([left, c], -1), place, 2, 1)
            write(self, "input", x, place, 1)
        else:
            right = self._row_above(image, place, into_right, kernels[1])
        right = keep(self, "right", right, place)
        return right if is_row(place) else left + right

    def _row_above(self, image, place, into, kernel):
        """The right side's states of the row above, [B, 1, W, h], of what its pixels were."""
        columns, channels = place.size[1], into.get_variable("params", "kernel").shape[2]
        batch, seen = image.shape[0], image.shape[3]
        corner = (0, place.row + place.pad - 1, place.pad, 0)
        pixels = lax.dynamic_slice(image, corner, (batch, 1, columns, seen))
        shape = (batch, 1, columns, channels - seen)
        x = load(self, "input", shape, self.dtype)
        gates = into(jnp.concatenate([x, pixels.astype(x.dtype)], -1), place)[:, 0]
        kept = load(self, "above", (batch, columns, self.features), gates.dtype)

        def pixel(carry, inputs):
            gates, above = inputs
            h, c = lstm(gates + jnp.concatenate([above, carry[0]], -1) @ kernel, carry[1])
            return (h, c), h

        zero = jnp.zeros((batch, self.features), gates.dtype)
        inputs = jnp.moveaxis(gates, 1, 0), jnp.moveaxis(kept, 1, 0)
        row = jnp.moveaxis(lax.scan(pixel, (zero, zero), inputs, reverse=True)[1], 0, 1)
        row = jnp.where(place.row > 0, row, 0)  # there is nothing above the first
        store(self, "above", row)
        return row[:, None]


def diagonals(gates, kernel):
    """States of an LSTM along the diagonals, from the upper left, [B, H, W, 4 h] -> [B, H, W, h].

    Row i is skewed i columns to the right, so that all of a diagonal is one column.
    """
    batch, height, width, units = gates.shape
    row = jnp.arange(height)[:, None]
    source = jnp.arange(width + height - 1)[None] - row
    inside = (source >= 0) & (source < width)
    skewed = jnp.take_along_axis(gates, jnp.clip(source, 0, width - 1)[None, :, :, None], 2)
    skewed = jnp.where(inside[None, :, :, None], skewed, 0)

    def diagonal(carry, gates):
        h, c = carry
        above = jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0)))
        h, c = lstm(gates + jnp.concatenate([above, h], -1) @ kernel, c)
        return (h, c), h

    zero = jnp.zeros((batch, height, units // 4), gates.dtype)
    states = lax.scan(diagonal, (zero, zero), jnp.moveaxis(skewed, 2, 0))[1]
    target = row + jnp.arange(width)[None]
    return jnp.take_along_axis(jnp.moveaxis(states, 0, 2), target[None, :, :, None], 2)


def lstm(gates, c):
    """(h, c) of the gates [..., 4 h], in the order o, f, i, g (equation 3)."""
    o, f, i, g = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
