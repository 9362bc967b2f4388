"""PixelCNN with masked convolutions, and Gated PixelCNN, which has no blind spot."""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.causal import (
    CausalConv,
    Conditioning,
    Position,
    is_pixel,
    is_row,
    pass_to_pixels,
)
from genjax.models.layers import Dropout
from genjax.typing import Array, Float, Int


class PixelCnn(nn.Module):
    """Masked convolutions (van den Oord et al. 2016a, section 3.5): one of type A, then type B.

    Stacked masks exclude pixels above and to the right beyond a diagonal, although these are known:
    the blind spot that van den Oord et al. 2016b found.

    Attributes:
      num_outputs: channels of the output.
      features: channels of every layer; a multiple of `groups`.
      num_layers: of type B.
      first_kernel, kernel: odd sizes.
      residual: whether a layer adds to its input.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
      dtype: of the computation; parameters are float32.
    """

    num_outputs: int
    features: int = 64
    num_layers: int = 7
    first_kernel: int = 7
    kernel: int = 3
    residual: bool = False
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
        if is_row(position):
            return None

        def conv(features, size, mask, **fields):
            half = size // 2
            return CausalConv(
                features,
                (half + 1, size) if size > 1 else (1, 1),
                top=half,
                left=half,
                mask=mask,
                groups=self.groups,
                **{"dtype": self.dtype, **fields},
            )

        bias = lambda: Conditioning(self.features, self.num_classes, self.dtype)(label)
        first = conv(self.features, self.first_kernel, "A", on_image=True)
        h = nn.relu(first(x, position) + bias())
        for _ in range(self.num_layers):
            y = nn.relu(conv(self.features, self.kernel, "B")(h, position) + bias())
            h = h + y if self.residual else y
        return conv(self.num_outputs, 1, "B", dtype="float32")(h, position)


class GatedPixelCnn(nn.Module):
    """Gated PixelCNN (van den Oord et al. 2016b): a stack for the rows above, one for this row.

    Attributes:
      num_outputs: channels of the output.
      features: channels of both stacks; a multiple of `groups`.
      dilations: of the layers, one each.
      first_kernel, kernel: odd sizes.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
      dropout: probability, of the horizontal stack's gated features.
      dtype: of the computation; parameters are float32.
    """

    num_outputs: int
    features: int = 64
    dilations: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1)
    first_kernel: int = 7
    kernel: int = 3
    groups: int = 1
    num_classes: int = 0
    dropout: float = 0.0
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
        width, half = self.features, self.first_kernel // 2
        v = h = None
        if not is_pixel(position):
            # Rows i - half .. i - 1; the later layers include row i of this map.
            size = (half, 2 * half + 1)
            fields = {"on_image": True, "dtype": self.dtype, "name": "v_first"}
            v = CausalConv(width, size, half, half, **fields)(x, position)
        if not is_row(position):
            fields = {"on_image": True, "name": "h_first", **self._masked}
            h = CausalConv(width, (1, half + 1), 0, half, mask="A", **fields)(x, position)

        skips = 0
        for n in range(len(self.dilations)):
            to_h = None
            if not is_pixel(position):
                v, to_h = self._vertical(n, v, label, position)
            to_h = pass_to_pixels(self, f"above{n}", to_h, position)
            if not is_row(position):
                y = self._horizontal(n, h, to_h, label, train, position)
                skips = skips + self._pointwise(width)(y, position)
                h = h + self._pointwise(width)(y, position)
        if is_row(position):
            return None
        y = nn.relu(self._pointwise(width)(nn.relu(skips), position))
        return self._pointwise(self.num_outputs, dtype="float32")(y, position)

    @property
    def _masked(self):
        return {"groups": self.groups, "dtype": self.dtype}

    def _pointwise(self, features, **fields):
        return CausalConv(features, mask="B", **{**self._masked, **fields})

    def _vertical(self, n, v, label, position):
        """Returns the vertical stack after layer n, and what the horizontal one adds of it."""
        width, half, d = 2 * self.features, self.kernel // 2, self.dilations[n]
        size = (half + 1, self.kernel)
        conv = CausalConv(
            width, size, half * d, half * d, dilation=d, dtype=self.dtype, name=f"v{n}"
        )
        joint = conv(v, position)
        to_h = CausalConv(width, dtype=self.dtype, name=f"v_to_h{n}")(joint, position)
        bias = Conditioning(width, self.num_classes, self.dtype, name=f"v_class{n}")
        return gate(joint + bias(label)), to_h

    def _horizontal(self, n, h, to_h, label, train, position):
        """Returns the gated features of layer n of the horizontal stack."""
        width, half, d = 2 * self.features, self.kernel // 2, self.dilations[n]
        conv = CausalConv(
            width, (1, half + 1), 0, half * d, dilation=d, mask="B", name=f"h{n}", **self._masked
        )
        bias = Conditioning(width, self.num_classes, self.dtype, name=f"h_class{n}")
        y = gate(conv(h, position) + to_h + bias(label))
        return Dropout(self.dropout, deterministic=not train)(y)


def gate(x: Float[Array, "*shape c"]) -> Float[Array, "*shape half"]:
    """Computes tanh(a) sigmoid(b) of the halves a, b of the channels."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)
