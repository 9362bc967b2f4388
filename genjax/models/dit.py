"""Diffusion transformer (Peebles & Xie 2023) with adaLN-Zero."""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.attention import attend, sinusoidal, sinusoidal_grid
from genjax.models.layers import Dense
from genjax.models.unet import patchify, unpatchify
from genjax.typing import Array, Float, Int, Num

_zeros = nn.initializers.zeros_init()


def _modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """Attention and a two-layer perceptron; shift, scale and gate of both from the condition.

    Attributes:
      num_heads: of the attention.
      dtype: of the computation; parameters are float32.
    """

    num_heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b length d"], c: Float[Array, "b d"]
    ) -> Float[Array, "b length d"]:
        """Returns new tokens of tokens x and conditions c."""
        batch, length, dim = x.shape
        modulation = nn.Dense(6 * dim, dtype=self.dtype, kernel_init=_zeros, name="modulation")
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation(nn.silu(c)), 6, -1)
        norm = lambda: nn.LayerNorm(use_bias=False, use_scale=False, dtype=self.dtype)
        h = _modulate(norm()(x), shift1, scale1)
        qkv = Dense(3 * dim, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.split(qkv.reshape(batch, length, 3 * self.num_heads, -1), 3, axis=2)
        h = attend(q, k, v).reshape(x.shape)
        x += gate1[:, None] * Dense(dim, dtype=self.dtype, name="out")(h)
        h = _modulate(norm()(x), shift2, scale2)
        h = nn.gelu(Dense(4 * dim, dtype=self.dtype, name="mlp1")(h))
        return x + gate2[:, None] * Dense(dim, dtype=self.dtype, name="mlp2")(h)


class DiT(nn.Module):
    """A denoising network (x, c_noise, labels) -> an image of the shape of x.

    Attributes:
      dim: of a token.
      depth: number of blocks.
      num_heads: of every attention.
      patch_size: side of the square of pixels that is one token.
      num_classes: 0 for an unconditional network; label `num_classes` means no class.
      remat: whether blocks are computed again for their gradients, which saves memory.
      dtype: of the computation; parameters are float32.
    """

    dim: int = 128
    depth: int = 4
    num_heads: int = 4
    patch_size: int = 4
    num_classes: int = 0
    remat: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        c_noise: Num[Array, " b"] | Num[Array, "b k"],
        labels: Int[Array, " b"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Returns the output of the network, float32.

        Raises:
          ValueError: sides that are no multiples of `patch_size`.
        """
        batch, height, width, channels = x.shape
        p = self.patch_size
        if height % p or width % p:
            raise ValueError(f"height and width must be multiples of {p}")
        rows, columns = height // p, width // p
        h = patchify(x, p).reshape(batch, rows * columns, -1).astype(self.dtype)
        h = Dense(self.dim, dtype=self.dtype, name="patches")(h)
        h += sinusoidal_grid(rows, columns, self.dim).astype(self.dtype)
        c = sinusoidal(c_noise, 256).astype(self.dtype)
        c = nn.silu(nn.Dense(self.dim, dtype=self.dtype, name="time1")(c))
        c = nn.Dense(self.dim, dtype=self.dtype, name="time2")(c)
        if self.num_classes:
            c += nn.Embed(self.num_classes + 1, self.dim, dtype=self.dtype, name="classes")(labels)
        make_block = nn.remat(DiTBlock) if self.remat else DiTBlock
        for i in range(self.depth):
            h = make_block(self.num_heads, self.dtype, name=f"block{i}")(h, c)
        modulation = nn.Dense(2 * self.dim, dtype=self.dtype, kernel_init=_zeros, name="modulation")
        shift, scale = jnp.split(modulation(nn.silu(c)), 2, axis=-1)
        norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=self.dtype, name="norm_out")
        h = _modulate(norm(h), shift, scale)
        h = Dense(p * p * channels, dtype=jnp.float32, kernel_init=_zeros, name="pixels")(h)
        return unpatchify(h.reshape(batch, rows, columns, -1), p)
