"""Attention, and sinusoidal embeddings of numbers and positions."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.devices import platform
from genjax.typing import Array, Float, Num


def attend(
    q: Float[Array, "b length heads d"],
    k: Float[Array, "b keys heads d"],
    v: Float[Array, "b keys heads d"],
) -> Float[Array, "b length heads d"]:
    """Computes softmax(q k^T / sqrt(d)) v, by the fused kernel of cuDNN where there is one."""
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    fits = q.shape[-1] <= 128 and q.shape[-1] % 8 == 0
    fused = "cudnn" if half and fits and platform() == "gpu" else None
    return jax.nn.dot_product_attention(q, k, v, implementation=fused)


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
