"""Attention, and sinusoidal embeddings of numbers and positions."""

import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.devices import compute_capability, platform
from genjax.typing import Array, Float, Num

# Queries of one block of causal attention, at most.
BLOCK = 128

# Part of the key of JAX's caches: a fused kernel is not taken from a trace of before.
_plain = jax.make_user_context(default_value=False)


def attend(
    q: Float[Array, "b length heads d"],
    k: Float[Array, "b keys heads d"],
    v: Float[Array, "b keys heads d"],
) -> Float[Array, "b length heads d"]:
    """Computes softmax(q k^T / sqrt(d)) v, by the fused kernel of cuDNN where there is one.

    The fused kernel has a gradient but no derivative forwards: see `plain_attention`.
    """
    fused = "cudnn" if _fused_fits(q.dtype, q.shape[-1]) else None
    return jax.nn.dot_product_attention(q, k, v, implementation=fused)


def attend_causally(
    q: Float[Array, "b length heads d"],
    k: Float[Array, "b length heads d"],
    v: Float[Array, "b length heads d_v"],
) -> Float[Array, "b length heads d_v"]:
    """Computes softmax(q k^T / sqrt(d)) v, where query n attends to keys 0 to n.

    On an accelerator no array of [length, length] weights is held: there is the fused kernel of
    cuDNN, see `attend`, or one block of queries after another, whose weights are computed again for
    the gradients.
    """
    length, depth, value_depth = q.shape[1], q.shape[-1], v.shape[-1]
    # `dot_product_attention` wants one size, cuDNN a multiple of 8; zeros change neither the scores
    # nor the results.
    size = max(depth, value_depth)
    fused = _fused_fits(q.dtype, _multiple(size, 8))
    size = _multiple(size, 8) if fused else size
    q, k, v = (jnp.pad(x, ((0, 0),) * 3 + ((0, size - x.shape[-1]),)) for x in (q, k, v))
    scale = 1 / math.sqrt(depth)
    if fused or length <= BLOCK or platform() == "cpu":
        out = jax.nn.dot_product_attention(
            q, k, v, scale=scale, is_causal=True, implementation="cudnn" if fused else None
        )
    else:
        out = _attend_causally_by_blocks(q, k, v, scale)
    return out[..., :value_depth]


def _attend_causally_by_blocks(q, k, v, scale):
    """Computes causal attention, for one block of queries after another."""
    batch, length, heads, dim = q.shape
    count = -(-length // BLOCK)
    size = -(-length // count)
    rows = jnp.pad(q, ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
    rows = jnp.moveaxis(rows.reshape(batch, count, size, heads, dim), 1, 0)
    # The gradients of keys and values are sums over the blocks, in this precision.
    keys, values = k.astype(jnp.float32), v.astype(jnp.float32)

    def block(carry, inputs):
        first, queries = inputs
        mask = jnp.arange(length)[None] <= first + jnp.arange(size)[:, None]
        pair = keys.astype(q.dtype), values.astype(q.dtype)
        out = jax.nn.dot_product_attention(queries, *pair, mask=mask[None, None], scale=scale)
        return carry, out

    block = jax.checkpoint(block, prevent_cse=False)
    out = jax.lax.scan(block, (), (size * jnp.arange(count), rows))[1]
    return jnp.moveaxis(out, 0, 1).reshape(batch, count * size, heads, dim)[:, :length]


def _multiple(n: int, factor: int) -> int:
    """Returns the smallest multiple of `factor` that is at least n."""
    return -(-n // factor) * factor


def plain_attention() -> AbstractContextManager[None]:
    """Lets attention be computed by matrix products while a function is traced in this context.

    Needed where the function is differentiated forwards (`jax.jvp`), which fused kernels refuse.
    """
    return _plain(True)


def _fused_fits(dtype: Any, dim: int) -> bool:
    """Tells whether cuDNN's kernel is there for heads of `dim` numbers, and may be taken."""
    if _plain.value or dtype not in (jnp.bfloat16, jnp.float16) or platform() != "gpu":
        return False
    return dim % 8 == 0 and dim <= (256 if compute_capability() >= 9 else 128)


def sinusoidal(
    c: Num[Array, " b"] | Num[Array, "b k"], dim: int, max_period: float = 10_000.0
) -> Float[Array, "b embedding"]:
    """Embeds numbers [B] or [B, K] as [B, K dim]: sines and cosines of frequencies from 1 down.

    Vaswani et al. 2017 in the form of Ho et al. 2020: all sines first, the lowest frequency exactly
    1 / max_period.
    """
    c = c.reshape(c.shape[0], -1).astype(jnp.float32)
    half = dim // 2
    frequencies = np.exp(-np.log(max_period) * np.arange(half) / max(half - 1, 1))
    angles = c[..., None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(c.shape[0], -1)


def sinusoidal_grid(height: int, width: int, dim: int) -> Float[Array, "length {dim}"]:
    """Embeds the positions of a grid as [height * width, dim] (Peebles & Xie 2023).

    Half of the components are for the row, half for the column.
    """
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4))
    parts = []
    for axis in (rows, columns):
        angles = axis.reshape(-1, 1) * frequencies
        parts += [np.sin(angles), np.cos(angles)]
    return jnp.asarray(np.concatenate(parts, axis=-1), jnp.float32)
