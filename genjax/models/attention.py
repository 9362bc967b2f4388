"""Attention, and sinusoidal embeddings of numbers and positions."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.devices import compute_capability, platform
from genjax.typing import Array, Float, Num

_plain = contextvars.ContextVar("plain_attention", default=False)


def attend(
    q: Float[Array, "b length heads d"],
    k: Float[Array, "b keys heads d"],
    v: Float[Array, "b keys heads d"],
) -> Float[Array, "b length heads d"]:
    """Computes softmax(q k^T / sqrt(d)) v, by the fused kernel of cuDNN where there is one.

    The fused kernel has a gradient but no derivative forwards: see `plain_attention`.
    """
    fused = "cudnn" if not _plain.get() and _fused_fits(q.dtype, q.shape[-1]) else None
    return jax.nn.dot_product_attention(q, k, v, implementation=fused)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Lets `attend` compute by matrix products while a function is traced in this context.

    Needed where the function is differentiated forwards (`jax.jvp`), which fused kernels refuse.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _fused_fits(dtype: Any, dim: int) -> bool:
    """Tells whether cuDNN's kernel is there for heads of `dim` numbers."""
    if dtype not in (jnp.bfloat16, jnp.float16) or platform() != "gpu":
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
