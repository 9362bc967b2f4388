"""PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import (
    CausalConv,
    GatedResnet,
    Position,
    is_pixel,
    is_row,
    load,
    pass_to_pixels,
    remat_outside_sampling,
    store,
)
from genjax.typing import Array, Float, Int

# Two rows, three columns around its own; two rows, two columns up to its own (figure 2).
DOWN = {"kernel_size": (2, 3), "top": 1, "left": 1}
DOWN_RIGHT = {"kernel_size": (2, 2), "top": 1, "left": 1}


class PixelCnnPp(nn.Module):
    """Two streams, u of the rows above and ul of the pixels above and to the left, each a U-Net.

    The condition is full pixels: the head models how the colours of one pixel depend on each other.
    Upsampling is a sub-pixel convolution, of which the paper's transposed one is a special case.

    Attributes:
      num_outputs: channels of the output.
      features: F, of every layer.
      blocks: gated residual blocks of each resolution on the way down; one more on the way up.
      resolutions: each half the one before; H and W are multiples of 2^(resolutions - 1).
      num_classes: 0 for an unconditional network.
      dropout: probability, in every block.
      remat: whether blocks are computed again for their gradients, which saves memory.
      dtype: of the computation; parameters are float32.
    """

    num_outputs: int
    features: int = 160
    blocks: int = 5
    resolutions: int = 3
    num_classes: int = 0
    dropout: float = 0.5
    remat: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        train: bool = False,
        position: Position | None = None,
    ) -> Float[Array, "b rows columns outputs"] | None:
        """Returns outputs, float32, of an image; of one pixel at a `position`; None of a row.

        Raises:
          ValueError: an image whose sides cannot be halved so often.
        """
        factor = 2 ** (self.resolutions - 1)
        if position is None and (x.shape[1] % factor or x.shape[2] % factor):
            raise ValueError(f"height and width must be multiples of {factor}")
        conv = functools.partial(
            CausalConv, self.features, weight_norm=True, dtype=self.dtype, on_image=True
        )
        u = ul = None
        if not is_pixel(position):
            u = conv((2, 3), top=2, left=1, name="u_first")(x, position)
        if not is_row(position):
            above = conv((1, 3), top=1, left=1, name="ul_above")(x, position)
            ul = above + conv((2, 1), top=1, left=1, name="ul_left")(x, position)
        _, ul = self._level(0, u, ul, label, train, position)
        if is_row(position):
            return None
        out = CausalConv(self.num_outputs, weight_norm=True, dtype="float32", name="out")
        return out(nn.elu(ul), position)

    def _level(self, level, u, ul, label, train, position):
        """Applies one resolution and all coarser ones: down, the next resolution, up."""
        block = functools.partial(self._block, label=label, train=train, position=position)
        shortcuts = [(u, ul)]
        for n in range(self.blocks):
            u, ul = block(f"down{level}_{n}", u, ul)
            shortcuts.append((u, ul))
        if level == self.resolutions - 1:
            shortcuts.pop()
        else:
            u, ul = self._coarser_levels(level, u, ul, label, train, position)
        for n, (u_shortcut, ul_shortcut) in enumerate(reversed(shortcuts)):
            u, ul = block(f"up{level}_{n}", u, ul, u_shortcut, ul_shortcut)
        return u, ul

    def _coarser_levels(self, level, u, ul, label, train, position):
        """Halves the resolution, applies the coarser levels, and doubles it again."""
        down = functools.partial(
            CausalConv, self.features, strides=2, weight_norm=True, dtype=self.dtype
        )
        low_u = low_ul = None
        if not is_pixel(position):
            low_u = down(**DOWN, name=f"shrink{level}_u")(u, position)
        if not is_row(position):
            low_ul = down(**DOWN_RIGHT, name=f"shrink{level}_ul")(ul, position)
        if position is None or position.coarser_levels:
            below = None if position is None else position.at_half_resolution()
            low_u, low_ul = self._level(level + 1, low_u, low_ul, label, train, below)
        if not is_pixel(position):
            u = SubPixel(self.features, True, self.dtype, name=f"grow{level}_u")(low_u, position)
        if not is_row(position):
            ul = SubPixel(self.features, False, self.dtype, name=f"grow{level}_ul")(
                low_ul, position
            )
        return u, ul

    def _block(self, name, u, ul, u_shortcut=None, ul_shortcut=None, *, label, train, position):
        """Applies a block to each stream; that of ul takes the new u and its own shortcut."""
        make = functools.partial(
            remat_outside_sampling(GatedResnet, self.remat, position, static_argnums=(4,)),
            num_classes=self.num_classes,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        if not is_pixel(position):
            u = make(DOWN, name=f"{name}_u")(u, u_shortcut, label, train, position)
        auxiliary = pass_to_pixels(self, f"{name}_kept", u, position)
        if not is_row(position):
            if ul_shortcut is not None:
                auxiliary = jnp.concatenate([auxiliary, ul_shortcut], -1)
            ul = make(DOWN_RIGHT, name=f"{name}_ul")(ul, auxiliary, label, train, position)
        return u, ul


class SubPixel(nn.Module):
    """Twice the resolution: a convolution to 2 x 2 sub-pixels (Shi et al. 2016).

    Attributes:
      features: channels of the output.
      full_rows: whether the kernel covers the columns next to its own, as the stream u may.
      dtype: of the computation; parameters are float32.
    """

    features: int
    full_rows: bool
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, low: Float[Array, "b h w c"] | None, position: Position | None
    ) -> Float[Array, "b rows columns features"]:
        """Returns feature maps of twice the sides.

        Args:
          low: of the lower resolution; None at a position that has none there.
          position: at the higher resolution.
        """
        size = {"kernel_size": (1, 3), "left": 1} if self.full_rows else {}
        conv = CausalConv(
            4 * self.features, weight_norm=True, dtype=self.dtype, **size, name="conv"
        )
        if position is None:
            batch, height, width, _ = low.shape
            y = conv(low).reshape(batch, height, width, 2, 2, self.features)
            return y.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, self.features)
        below = position.at_half_resolution()
        if low is not None:
            y = conv(low, below)
            if position.stage == "row":
                store(self, "low", y)
            else:  # one row is enough: the newest of the lower resolution
                shape = (y.shape[0], 1, below.size[1], y.shape[-1])
                row = load(self, "low", shape, y.dtype)
                store(self, "low", lax.dynamic_update_slice_in_dim(row, y, below.col, axis=2))
        row = self.get_variable("cache", "low")
        batch, _, width, _ = row.shape
        y = row.reshape(batch, width, 2, 2, self.features)
        y = lax.dynamic_index_in_dim(y, position.row % 2, axis=2).reshape(batch, 1, 2 * width, -1)
        if position.stage == "row":
            return y
        return lax.dynamic_slice_in_dim(y, position.col, 1, axis=2)
