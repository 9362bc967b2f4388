"""PixelCNN with masked convolutions, and Gated PixelCNN, which has no blind spot."""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.causal import CausalConv, Conditioning, is_pixel, is_row, keep


class PixelCnn(nn.Module):
    """Masked convolutions (van den Oord et al. 2016a, section 3.5): one of type A, then type B.

    Stacked masks never see what lies above and to the right beyond a diagonal, though it is known:
    the blind spot that van den Oord et al. 2016b found.

    Attributes:
      num_outputs: channels of the output.
      features: channels of every layer; a multiple of `groups`.
      num_layers: of type B.
      first_kernel, kernel: odd sizes.
      residual: whether a layer adds to its input.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
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
    def __call__(self, x, label=None, train=False, place=None):
        """x [B, H, W, C] -> float32 [B, H, W, num_outputs]; of one pixel at a `place`."""
        if is_row(place):
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
                dtype=self.dtype,
                **fields,
            )

        bias = lambda: Conditioning(self.features, self.num_classes, self.dtype)(label)
        h = nn.relu(conv(self.features, self.first_kernel, "A", on_image=True)(x, place) + bias())
        for _ in range(self.num_layers):
            y = nn.relu(conv(self.features, self.kernel, "B")(h, place) + bias())
            h = h + y if self.residual else y
        return conv(self.num_outputs, 1, "B")(h, place).astype(jnp.float32)


class GatedPixelCnn(nn.Module):
    """Gated PixelCNN (van den Oord et al. 2016b): a stack for the rows above, one for this row.

    Attributes:
      num_outputs: channels of the output.
      features: channels of both stacks; a multiple of `groups`.
      dilations: one layer each.
      first_kernel, kernel: odd sizes.
      groups: 1, or the colours of a pixel, which then follow one another.
      num_classes: 0 for an unconditional network.
      dropout: probability, of the horizontal stack's gated features.
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
    def __call__(self, x, label=None, train=False, place=None):
        """x [B, H, W, C] -> float32 [B, H, W, num_outputs]; of one pixel at a `place`."""
        width, half = self.features, self.first_kernel // 2
        masked = {"groups": self.groups, "dtype": self.dtype}
        point = lambda features: CausalConv(features, mask="B", **masked)

        v = h = None
        if not is_pixel(place):
            # Rows i - half .. i - 1, and later row i of what has seen only those.
            size = (half, 2 * half + 1)
            fields = {"on_image": True, "dtype": self.dtype, "name": "v_first"}
            v = CausalConv(width, size, half, half, **fields)(x, place)
        if not is_row(place):
            fields = {"on_image": True, "name": "h_first", **masked}
            h = CausalConv(width, (1, half + 1), 0, half, mask="A", **fields)(x, place)

        skips = 0
        half = self.kernel // 2
        for n, d in enumerate(self.dilations):
            fields = {"dilation": d, "dtype": self.dtype}
            to_h = None
            if not is_pixel(place):
                conv = CausalConv(
                    2 * width, (half + 1, self.kernel), half * d, half * d, name=f"v{n}", **fields
                )
                joint = conv(v, place)
                to_h = CausalConv(2 * width, dtype=self.dtype, name=f"v_to_h{n}")(joint, place)
                bias = Conditioning(2 * width, self.num_classes, self.dtype, name=f"v_class{n}")
                v = gate(joint + bias(label))
            to_h = keep(self, f"above{n}", to_h, place)
            if is_row(place):
                continue
            conv = CausalConv(
                2 * width, (1, half + 1), 0, half * d, mask="B", name=f"h{n}", dilation=d, **masked
            )
            bias = Conditioning(2 * width, self.num_classes, self.dtype, name=f"h_class{n}")
            y = gate(conv(h, place) + to_h + bias(label))
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            skips = skips + point(width)(y, place)
            h = h + point(width)(y, place)
        if is_row(place):
            return None
        y = nn.relu(point(width)(nn.relu(skips), place))
        return point(self.num_outputs)(y, place).astype(jnp.float32)


def gate(x):
    """tanh(a) sigmoid(b) of the halves a, b of the channels."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)
