"""PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import (
    CausalConv,
    GatedResnet,
    is_pixel,
    is_row,
    keep,
    load,
    store,
)

# Two rows, three columns around its own; two rows, two columns up to its own (figure 2).
DOWN = {"kernel_size": (2, 3), "top": 1, "left": 1}
DOWN_RIGHT = {"kernel_size": (2, 2), "top": 1, "left": 1}


class PixelCnnPp(nn.Module):
    """Two streams, u of the rows above and ul of what is above and left, each a U-Net.

    Whole pixels are conditioned on: the colours of one pixel are the head's business. Up-sampling
    is a sub-pixel convolution, of which the paper's transposed one is a special case.

    Attributes:
      num_outputs: channels of the output.
      features: F, of every layer.
      blocks: gated residual blocks of each resolution on the way down; one more on the way up.
      resolutions: each half the one before; H and W are multiples of 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      dropout: probability, in every block.
    """

    num_outputs: int
    features: int = 160
    blocks: int = 5
    resolutions: int = 3
    num_classes: int = 0
    dropout: float = 0.5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, label=None, train=False, place=None):
        """x [B, H, W, C] -> float32 [B, H, W, num_outputs]; of one pixel at a `place`."""
        factor = 2 ** (self.resolutions - 1)
        if place is None and (x.shape[1] % factor or x.shape[2] % factor):
            raise ValueError(f"height and width must be multiples of {factor}")
        conv = functools.partial(
            CausalConv, self.features, weight_norm=True, dtype=self.dtype, on_image=True
        )
        u = ul = None
        if not is_pixel(place):
            u = conv((2, 3), top=2, left=1, name="u_first")(x, place)
        if not is_row(place):
            above = conv((1, 3), top=1, left=1, name="ul_above")(x, place)
            ul = above + conv((2, 1), top=1, left=1, name="ul_left")(x, place)
        _, ul = self._level(0, u, ul, label, train, place)
        if is_row(place):
            return None
        out = CausalConv(self.num_outputs, weight_norm=True, dtype=self.dtype, name="out")
        return out(nn.elu(ul), place).astype(jnp.float32)

    def _level(self, level, u, ul, label, train, place):
        """One resolution and all below it: down, the next one, up."""
        named = {"weight_norm": True, "dtype": self.dtype}

        def block(u, ul, u_aside, ul_aside, name):
            """A block of each stream; ul looks at u, after it, and at its own shortcut."""
            make = functools.partial(
                GatedResnet, num_classes=self.num_classes, dropout=self.dropout, dtype=self.dtype
            )
            if not is_pixel(place):
                u = make(DOWN, name=f"{name}_u")(u, u_aside, label, train, place)
            beside = keep(self, f"{name}_kept", u, place)
            if not is_row(place):
                if ul_aside is not None:
                    beside = jnp.concatenate([beside, ul_aside], -1)
                ul = make(DOWN_RIGHT, name=f"{name}_ul")(ul, beside, label, train, place)
            return u, ul

        shortcuts = [(u, ul)]
        for n in range(self.blocks):
            u, ul = block(u, ul, None, None, f"down{level}_{n}")
            shortcuts.append((u, ul))

        if level == self.resolutions - 1:
            shortcuts.pop()
        else:
            low_u = low_ul = None
            if not is_pixel(place):
                down = CausalConv(
                    self.features, **DOWN, strides=2, name=f"shrink{level}_u", **named
                )
                low_u = down(u, place)
            if not is_row(place):
                down = CausalConv(
                    self.features, **DOWN_RIGHT, strides=2, name=f"shrink{level}_ul", **named
                )
                low_ul = down(ul, place)
            if place is None or place.due:
                below = None if place is None else place.down()
                low_u, low_ul = self._level(level + 1, low_u, low_ul, label, train, below)
            if not is_pixel(place):
                up = SubPixel(self.features, True, self.dtype, name=f"grow{level}_u")
                u = up(low_u, place)
            if not is_row(place):
                up = SubPixel(self.features, False, self.dtype, name=f"grow{level}_ul")
                ul = up(low_ul, place)

        for n, (u_aside, ul_aside) in enumerate(reversed(shortcuts)):
            u, ul = block(u, ul, u_aside, ul_aside, f"up{level}_{n}")
        return u, ul


class SubPixel(nn.Module):
    """Twice the resolution: a convolution to 2 x 2 sub-pixels (Shi et al. 2016).

    Attributes:
      whole_rows: whether the kernel sees the columns beside its own, as the stream u may.
    """

    features: int
    whole_rows: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(self, low, place):
        """[B, H, W, C] -> [B, 2 H, 2 W, features].

        At a `place`, of the larger resolution, `low` is None where the smaller one is not due.
        """
        size = {"kernel_size": (1, 3), "left": 1} if self.whole_rows else {}
        conv = CausalConv(
            4 * self.features, weight_norm=True, dtype=self.dtype, **size, name="conv"
        )
        if place is None:
            batch, height, width, _ = low.shape
            y = conv(low).reshape(batch, height, width, 2, 2, self.features)
            return y.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, self.features)
        below = place.down()
        if low is not None:
            y = conv(low, below)
            if place.stage == "row":
                store(self, "low", y)
            else:  # one row is enough: the smaller resolution's newest
                shape = (y.shape[0], 1, below.size[1], y.shape[-1])
                row = load(self, "low", shape, y.dtype)
                store(self, "low", lax.dynamic_update_slice_in_dim(row, y, below.col, axis=2))
        row = self.get_variable("cache", "low")
        batch, _, width, _ = row.shape
        y = row.reshape(batch, width, 2, 2, self.features)
        y = lax.dynamic_index_in_dim(y, place.row % 2, axis=2).reshape(batch, 1, 2 * width, -1)
        if place.stage == "row":
            return y
        return lax.dynamic_slice_in_dim(y, place.col, 1, axis=2)
