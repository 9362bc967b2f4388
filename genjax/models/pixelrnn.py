"""PixelRNN with Row and Diagonal LSTMs (van den Oord et al. 2016a, arXiv:1601.06759)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import (
    CausalConv,
    Conditioning,
    Position,
    cache_rows,
    is_row,
    load,
    pass_to_pixels,
    store,
)
from genjax.typing import Array, Float, Int


class PixelRnn(nn.Module):
    """A 7x7 masked convolution, residual LSTM layers, two pointwise ones (sections 3.2 to 3.6).

    Attributes:
      num_outputs: channels of the output.
      kind: "row" or "diagonal".
      features: h, units of an LSTM; the layers between have 2 h. A multiple of `groups`.
      num_layers: of LSTMs.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
      dtype: of the computation; parameters are float32.
    """

    num_outputs: int
    kind: str = "diagonal"
    features: int = 32
    num_layers: int = 7
    groups: int = 1
    num_classes: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        train: bool = False,
        position: Position | None = None,
    ) -> Float[Array, "b rows columns outputs"] | None:
        """Returns outputs, float32, of an image; of one pixel at a `position`; None of a row."""
        conv = functools.partial(CausalConv, groups=self.groups, dtype=self.dtype)
        h, width = None, 2 * self.features
        if not is_row(position):
            first = conv(width, (4, 7), top=3, left=3, mask="A", on_image=True, name="first")
            h = first(x, position)
            h += Conditioning(width, self.num_classes, self.dtype, name="class")(label)
        layer = {"row": RowLstm, "diagonal": DiagonalBiLstm}[self.kind]
        for n in range(self.num_layers):
            y = layer(self.features, self.groups, self.dtype, name=f"lstm{n}")(h, x, position)
            if not is_row(position):
                h += conv(width, mask="B", name=f"up{n}")(y, position)
        if is_row(position):
            return None
        h = nn.relu(conv(width, mask="B", name="hidden")(nn.relu(h), position))
        return conv(self.num_outputs, mask="B", dtype="float32", name="out")(h, position)


class RowLstm(nn.Module):
    """An LSTM over rows (section 3.2), with a 1x3 convolution of the state of the row above.

    Attributes:
      features: h.
      groups: of channels, 1 or the number of colours.
      dtype: of the computation; parameters are float32.
    """

    features: int
    groups: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"] | None,
        image: Float[Array, "b rows columns colours"],
        position: Position | None,
    ) -> Float[Array, "b _ _ units"] | None:
        """Returns the states [B, H, W, h]; None of a row. `image` is not used."""
        if is_row(position):
            return None
        width = self.features
        into = CausalConv(
            4 * width, (1, 2), 0, 1, mask="B", groups=self.groups, dtype=self.dtype, name="in"
        )
        gates = into(x, position)
        shape = (3 * width, 4 * width)
        kernel = self.param("state", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        if position is None:

            def row(carry, gates):
                h, c = carry
                p = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
                around = jnp.concatenate([p[:, :-2], p[:, 1:-1], p[:, 2:]], -1)
                h, c = lstm(gates + around @ kernel, c)
                return (h, c), h

            zero = jnp.zeros((x.shape[0], x.shape[2], width), gates.dtype)
            return jnp.moveaxis(lax.scan(row, (zero, zero), jnp.moveaxis(gates, 1, 0))[1], 0, 1)
        zero = jnp.zeros((x.shape[0], 1, 1, 2 * width), gates.dtype)
        read = cache_rows(self, "state", zero, position, 2, 1, 1)
        above = read(position.row - 1, position.col, 3)
        around = above[..., :width].reshape(x.shape[0], 1, 1, 3 * width)
        h, c = lstm(gates + around @ kernel, above[:, :, 1:2, width:])
        cache_rows(self, "state", jnp.concatenate([h, c], -1), position, 2, 1, 1)
        return h


class DiagonalBiLstm(nn.Module):
    """LSTMs along the diagonals, from both sides (section 3.3): their inputs are all pixels before.

    The state of the left side at (i, j) comes from (i, j - 1) and (i - 1, j); that of the right
    side from (i, j + 1) and (i - 1, j), and is then moved down a row. The right side also takes the
    image, without which the first pixels of a row could not depend on the last one of the row
    above.

    Attributes:
      features: h, of each side.
      groups: of channels, 1 or the number of colours.
      dtype: of the computation; parameters are float32.
    """

    features: int
    groups: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"] | None,
        image: Float[Array, "b rows columns colours"],
        position: Position | None,
    ) -> Float[Array, "b _ _ units"] | None:
        """Returns the sum of the states of both sides, [B, H, W, h]."""
        width = self.features
        masked = {"mask": "B", "groups": self.groups, "dtype": self.dtype}
        kernels = []
        for name in ("state_left", "state_right"):
            kernel = self.param(name, nn.initializers.lecun_normal(), (2 * width, 4 * width))
            kernels.append(kernel.astype(self.dtype))
        into_right = CausalConv(4 * width, dtype=self.dtype, name="in_right")

        left = right = None
        if not is_row(position):
            gates = CausalConv(4 * width, **masked, name="in_left")(x, position)
        if position is None:
            mirrored = jnp.concatenate([x, image.astype(x.dtype)], -1)[:, :, ::-1]
            both_gates = jnp.stack([gates, into_right(mirrored)])
            left, right = diagonals(both_gates, jnp.stack(kernels))
            right = jnp.pad(right[:, :-1, ::-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        elif position.stage == "pixel":
            zero = jnp.zeros((x.shape[0], 1, 1, 2 * width), gates.dtype)
            read = cache_rows(self, "state", zero, position, 2, 1)
            above = read(position.row - 1, position.col + 1, 1)
            before = read(position.row, position.col, 1)
            both = jnp.concatenate([above[..., :width], before[..., :width]], -1)
            left, c = lstm(gates + both @ kernels[0], before[..., width:])
            cache_rows(self, "state", jnp.concatenate([left, c], -1), position, 2, 1)
            cache_rows(self, "input", x, position, 1)
        else:
            right = self._row_above(image, position, into_right, kernels[1])
        right = pass_to_pixels(self, "right", right, position)
        return right if is_row(position) else left + right

    def _row_above(self, image, position, into, kernel):
        """Returns the right side's states of the row above, which is complete: [B, 1, W, h]."""
        columns, channels = position.size[1], into.get_variable("params", "kernel").shape[2]
        batch, colours = image.shape[0], image.shape[3]
        corner = (0, position.row + position.pad - 1, position.pad, 0)
        pixels = lax.dynamic_slice(image, corner, (batch, 1, columns, colours))
        shape = (batch, 1, columns, channels - colours)
        x = load(self, "input", shape, self.dtype)
        gates = into(jnp.concatenate([x, pixels.astype(x.dtype)], -1), position)[:, 0]
        before = load(self, "above", (batch, columns, self.features), gates.dtype)

        def pixel(carry, inputs):
            gates, above = inputs
            h, c = lstm(gates + jnp.concatenate([above, carry[0]], -1) @ kernel, carry[1])
            return (h, c), h

        zero = jnp.zeros((batch, self.features), gates.dtype)
        inputs = jnp.moveaxis(gates, 1, 0), jnp.moveaxis(before, 1, 0)
        row = jnp.moveaxis(lax.scan(pixel, (zero, zero), inputs, reverse=True)[1], 0, 1)
        row = jnp.where(position.row > 0, row, 0)  # nothing is above the first row
        store(self, "above", row)
        return row[:, None]


def diagonals(
    gates: Float[Array, "*sides b height width units"],
    kernel: Float[Array, "*sides inputs units"],
) -> Float[Array, "*sides b height width h"]:
    """Computes the states of LSTMs along the diagonals, from the upper left; units = 4 h.

    Row i is skewed i columns to the right, so that every diagonal becomes a column, and the LSTMs
    of all sides go from column to column together. The gradients compute a column again from its
    states, the only things that are stored.
    """
    *_, height, _, units = gates.shape
    columns = jnp.moveaxis(skewed(gates), -2, 0)

    @jax.checkpoint
    def diagonal(carry, gates):
        h, c = carry
        above = jnp.pad(h, [(0, 0)] * (h.ndim - 2) + [(1, 0), (0, 0)])[..., :-1, :]
        inputs = jnp.concatenate([above, h], -1)
        h, c = lstm(gates + jnp.einsum("...bhi,...iu->...bhu", inputs, kernel), c)
        return (h, c), h

    zero = jnp.zeros((*columns.shape[1:-1], units // 4), gates.dtype)
    states = lax.scan(diagonal, (zero, zero), columns)[1]
    return unskewed(jnp.moveaxis(states, 0, -2))


def skewed(x: Float[Array, "*shape height width c"]) -> Float[Array, "*shape height columns c"]:
    """Moves row i by i columns to the right, between zeros: height + width - 1 columns."""
    *batch, height, width, channels = x.shape
    # Rows of one zero too many, one after another: each begins a column later than the one before.
    x = jnp.pad(x, [(0, 0)] * (len(batch) + 1) + [(0, height), (0, 0)])
    x = x.reshape(*batch, -1, channels)[..., :-height, :]
    return x.reshape(*batch, height, height + width - 1, channels)


def unskewed(x: Float[Array, "*shape height columns c"]) -> Float[Array, "*shape height width c"]:
    """Undoes `skewed`."""
    *batch, height, columns, channels = x.shape
    x = x.reshape(*batch, -1, channels)
    x = jnp.pad(x, [(0, 0)] * len(batch) + [(0, height), (0, 0)])
    x = x.reshape(*batch, height, columns + 1, channels)
    return x[..., : columns + 1 - height, :]


def lstm(
    gates: Float[Array, "*shape units"], c: Float[Array, "*shape h"]
) -> tuple[Float[Array, "*shape h"], Float[Array, "*shape h"]]:
    """Returns the new (h, c) of the gates, in the order o, f, i, g (equation 3); units = 4 h."""
    o, f, i, g = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
