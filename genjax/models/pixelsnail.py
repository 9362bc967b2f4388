"""PixelSNAIL, causal convolutions and attention (Chen et al. 2018, arXiv:1712.09763)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import CausalConv, GatedResnet, is_row, load, store
from genjax.models.layers import Dense

DOWN_RIGHT = {"kernel_size": (2, 2), "top": 1, "left": 1}


class PixelSnail(nn.Module):
    """Blocks of gated residual convolutions, each with attention to all pixels before.

    Whole pixels are conditioned on: the colours of one pixel are the head's business.

    Attributes:
      num_outputs: channels of the output.
      features: F, of every layer.
      blocks: each of `layers` residual convolutions and one attention.
      heads, key_features, value_features: of the attention, features in all.
      num_classes: 0 for an unconditional network.
      dropout: probability, in every residual convolution.
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
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, label=None, train=False, place=None):
        """x [B, H, W, C] -> float32 [B, H, W, num_outputs]; of one pixel at a `place`."""
        if is_row(place):
            return None
        first = {"on_image": True, "dtype": self.dtype}
        h = CausalConv(self.features, (1, 3), top=1, left=1, **first)(x, place)
        h += CausalConv(self.features, (2, 1), top=1, left=1, **first)(x, place)
        fields = (self.num_classes, self.dropout, False, self.dtype)
        whole = x.shape[1:3] if place is None else place.size
        row, col = jnp.arange(whole[0])[:, None], jnp.arange(whole[1])[None]
        if place is not None:
            row, col = place.row.reshape(1, 1), place.col.reshape(1, 1)
        where = jnp.stack(jnp.broadcast_arrays(row / whole[0] - 0.5, col / whole[1] - 0.5), -1)
        where = jnp.broadcast_to(where.astype(self.dtype), (x.shape[0], *where.shape))
        for _ in range(self.blocks):
            for _ in range(self.layers):
                h = GatedResnet(DOWN_RIGHT, *fields)(h, None, label, train, place)
            attention = CausalAttention(
                self.heads, self.key_features, self.value_features, dtype=self.dtype
            )
            seen = attention(jnp.concatenate([h, where], -1), x, place)
            h = GatedResnet({}, *fields)(h, seen, label, train, place)
        return CausalConv(self.num_outputs, dtype=self.dtype)(nn.elu(h), place).astype(jnp.float32)


class CausalAttention(nn.Module):
    """Attention of each pixel to all pixels before it in raster order (section 2.2).

    The key and value of pixel n - 1 are made of its features and of its colours. They stand at
    place n, at place 0 those of zeros, so that the first pixel has something to look at.
    """

    heads: int
    key_features: int
    value_features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, h, image, place):
        """h [B, H, W, C], image [B, H, W, any] -> [B, H, W, value_features]."""
        batch, height, width, channels = h.shape
        if place is None:
            before = jnp.concatenate([h, image.astype(h.dtype)], -1)
            before = before.reshape(batch, height * width, -1)
            before = jnp.pad(before[:, :-1], ((0, 0), (1, 0), (0, 0)))
        else:
            before = self._pixel_before(h, image, place)
        layer = Dense if place is None else nn.Dense
        dense = lambda features, name: layer(features, dtype=self.dtype, name=name)
        query = dense(self.key_features, "query")(h.reshape(batch, height * width, channels))
        key = dense(self.key_features, "key")(before)
        value = dense(self.value_features, "value")(before)
        newest = jnp.arange(height * width)
        if place is not None:
            newest = (place.row * place.size[1] + place.col)[None]
            key, value = (
                self._append(name, x, newest[0], math.prod(place.size))
                for name, x in (("keys", key), ("values", value))
            )
        split = lambda x: x.reshape(*x.shape[:2], self.heads, -1)
        query, key, value = split(query), split(key), split(value)
        scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
        seen = jnp.arange(key.shape[1])[None] <= newest[:, None]
        scores = jnp.where(seen, scores.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        out = jnp.einsum("bhnm,bmhd->bnhd", weights, value)
        return out.reshape(batch, height, width, self.value_features)

    def _pixel_before(self, h, image, place):
        """[B, 1, C] of the pixel before in raster order, zeros before the first."""
        newest = load(self, "newest", h.shape, h.dtype)
        store(self, "newest", h)
        n = place.row * place.size[1] + place.col - 1
        row, col = n // place.size[1], n % place.size[1]
        corner = (0, row + place.pad, col + place.pad, 0)
        pixel = lax.dynamic_slice(image, corner, (h.shape[0], 1, 1, image.shape[3]))
        before = jnp.concatenate([newest, pixel.astype(h.dtype)], -1)[:, 0]
        return jnp.where(n >= 0, before, 0)

    def _append(self, name, x, n, length):
        """Writes x [B, 1, C] at place n of the cache [B, length, C]."""
        shape = (x.shape[0], length, x.shape[2])
        kept = lax.dynamic_update_slice(load(self, name, shape, x.dtype), x, (0, n, 0))
        store(self, name, kept)
        return kept
