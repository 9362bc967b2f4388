"""PixelSNAIL, causal convolutions and attention (Chen et al. 2018, arXiv:1712.09763)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.attention import attend_causally
from genjax.models.causal import (
    CausalConv,
    GatedResnet,
    Position,
    is_row,
    load,
    remat_outside_sampling,
    store,
)
from genjax.models.layers import Dense
from genjax.typing import Array, Float, Int

DOWN_RIGHT = {"kernel_size": (2, 2), "top": 1, "left": 1}


class PixelSnail(nn.Module):
    """Blocks of gated residual convolutions, each followed by attention to all pixels before.

    The condition is full pixels: the head models how the colours of one pixel depend on each other.

    Attributes:
      num_outputs: channels of the output.
      features: F, of every layer.
      blocks: each of `layers` residual convolutions and one attention.
      layers: residual convolutions of a block.
      heads: of the attention.
      key_features, value_features: of the attention, of all heads together.
      num_classes: 0 for an unconditional network.
      dropout: probability, in every residual convolution.
      remat: whether residual convolutions and attention are computed again for their gradients,
        which saves memory.
      dtype: of the computation; parameters are float32.
    """

    num_outputs: int
    features: int = 64
    blocks: int = 4
    layers: int = 2
    heads: int = 1
    key_features: int = 16
    value_features: int = 32
    num_classes: int = 0
    dropout: float = 0.0
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
        """Returns outputs, float32, of an image; of one pixel at a `position`; None of a row."""
        if is_row(position):
            return None
        first = {"on_image": True, "dtype": self.dtype}
        h = CausalConv(self.features, (1, 3), top=1, left=1, **first)(x, position)
        h += CausalConv(self.features, (2, 1), top=1, left=1, **first)(x, position)
        coordinates = self._coordinates(x, position)
        make_resnet = remat_outside_sampling(GatedResnet, self.remat, position, static_argnums=(4,))
        make_attention = remat_outside_sampling(CausalAttention, self.remat, position)
        fields = (self.num_classes, self.dropout, False, self.dtype)
        for n in range(self.blocks):
            first = n * (self.layers + 1)
            for i in range(self.layers):
                resnet = make_resnet(DOWN_RIGHT, *fields, name=f"GatedResnet_{first + i}")
                h = resnet(h, None, label, train, position)
            attention = make_attention(
                self.heads,
                self.key_features,
                self.value_features,
                dtype=self.dtype,
                name=f"CausalAttention_{n}",
            )
            attended = attention(jnp.concatenate([h, coordinates], -1), x, position)
            resnet = make_resnet({}, *fields, name=f"GatedResnet_{first + self.layers}")
            h = resnet(h, attended, label, train, position)
        out = CausalConv(self.num_outputs, dtype="float32")
        return out(nn.elu(h), position)

    def _coordinates(self, x, position):
        """Returns row and column of every pixel, from -1/2 to 1/2: [B, H, W, 2]."""
        size = x.shape[1:3] if position is None else position.size
        row, col = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None]
        if position is not None:
            row, col = position.row.reshape(1, 1), position.col.reshape(1, 1)
        grid = jnp.stack(jnp.broadcast_arrays(row / size[0] - 0.5, col / size[1] - 0.5), -1)
        return jnp.broadcast_to(grid.astype(self.dtype), (x.shape[0], *grid.shape))


class CausalAttention(nn.Module):
    """Attention of each pixel to all pixels before it in raster order (section 2.2).

    Query n is of pixel n. Key and value n are of the features and colours of pixel n - 1, for n = 0
    of zeros, so that the first pixel has something to attend to. Query n attends to keys 0 to n.

    Attributes:
      heads: number of heads.
      key_features, value_features: of all heads together.
      dtype: of the computation; parameters are float32.
    """

    heads: int
    key_features: int
    value_features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b h w c"],
        image: Float[Array, "b rows columns colours"],
        position: Position | None,
    ) -> Float[Array, "b h w values"]:
        """Returns attended features; at a `position`, `image` is that of the sampler."""
        batch, height, width, channels = h.shape
        if position is None:
            before = jnp.concatenate([h, image.astype(h.dtype)], -1)
            before = before.reshape(batch, height * width, -1)
            before = jnp.pad(before[:, :-1], ((0, 0), (1, 0), (0, 0)))
        else:
            before = self._pixel_before(h, image, position)
        layer = Dense if position is None else nn.Dense
        dense = lambda features, name: layer(features, dtype=self.dtype, name=name)
        query = dense(self.key_features, "query")(h.reshape(batch, height * width, channels))
        key = dense(self.key_features, "key")(before)
        value = dense(self.value_features, "value")(before)
        newest = None
        if position is not None:
            newest, length = position.raster_index, math.prod(position.size)
            key = self._append("keys", key, newest, length)
            value = self._append("values", value, newest, length)
        split = lambda x: x.reshape(*x.shape[:2], self.heads, -1)
        out = causal_attention(split(query), split(key), split(value), newest)
        return out.reshape(batch, height, width, self.value_features)

    def _pixel_before(self, h, image, position):
        """Returns [B, 1, C] of the pixel before in raster order; zeros before the first."""
        newest = load(self, "newest", h.shape, h.dtype)
        store(self, "newest", h)
        n = position.raster_index - 1
        row, col = n // position.size[1], n % position.size[1]
        corner = (0, row + position.pad, col + position.pad, 0)
        pixel = lax.dynamic_slice(image, corner, (h.shape[0], 1, 1, image.shape[3]))
        before = jnp.concatenate([newest, pixel.astype(h.dtype)], -1)[:, 0]
        return jnp.where(n >= 0, before, 0)

    def _append(self, name, x, n, length):
        """Writes x [B, 1, C] into row n of a cache [B, length, C], which it returns."""
        shape = (x.shape[0], length, x.shape[2])
        rows = lax.dynamic_update_slice(load(self, name, shape, x.dtype), x, (0, n, 0))
        store(self, name, rows)
        return rows


def causal_attention(
    query: Float[Array, "b n heads d"],
    key: Float[Array, "b m heads d"],
    value: Float[Array, "b m heads v"],
    newest: Int[Array, ""] | None = None,
) -> Float[Array, "b n heads v"]:
    """Computes softmax(q k^T / sqrt(d)) v, where query n attends to keys 0 to n.

    Args:
      query, key, value: of all pixels in raster order.
      newest: for a single query, the last key that it attends to.
    """
    if newest is None:
        return attend_causally(query, key, value)
    depth = query.shape[-1]
    size = max(depth, value.shape[-1])
    # `dot_product_attention` wants one size; zeros change neither the scores nor the results.
    padded = (
        jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, size - x.shape[-1]))) for x in (query, key, value)
    )
    mask = (jnp.arange(key.shape[1]) <= newest)[None, None, None]
    out = jax.nn.dot_product_attention(*padded, mask=mask, scale=1 / math.sqrt(depth))
    return out[..., : value.shape[-1]]
