"""Attention, and the numbers a network is told, as vectors."""

import jax
import jax.numpy as jnp
import numpy as np


def attend(q, k, v):
    """softmax(q k^T / sqrt(D)) v, [B, L, heads, D] each; the fused kernel where there is one."""
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    fits = q.shape[-1] <= 128 and q.shape[-1] % 8 == 0
    fused = "cudnn" if half and fits and jax.default_backend() == "gpu" else None
    return jax.nn.dot_product_attention(q, k, v, implementation=fused)


def sinusoidal(c, dim, max_period=10_000.0):
    """Numbers [B] or [B, K] -> [B, K dim], sines and cosines of falling frequency, from 1 down.

    Vaswani et al. 2017 as Ho et al. 2020 have it: all sines first, the lowest frequency exactly
    1 / max_period.
    """
    c = c.reshape(c.shape[0], -1).astype(jnp.float32)
    half = dim // 2
    frequencies = np.exp(-np.log(max_period) * np.arange(half) / max(half - 1, 1))
    angles = c[..., None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(c.shape[0], -1)


def sinusoidal_grid(height, width, dim):
    """Fixed positions of a grid [height * width, dim], half for each axis (Peebles & Xie 2023)."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4))
    parts = []
    for axis in (rows, columns):
        angles = axis.reshape(-1, 1) * frequencies
        parts += [np.sin(angles), np.cos(angles)]
    return jnp.asarray(np.concatenate(parts, axis=-1), jnp.float32)
