"""Sums over a picture computed in overlapping windows, so that memory does not grow with it.

The sums are over positions of a network's activations. Each position belongs to one window, which
contains everything that the activation there depends on: the sums, and by automatic differentiation
their gradients, equal those of the full picture up to rounding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.typing import Array, Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """Windows of one size over a picture.

    Attributes:
      window: (height, width) of each window.
      starts: the first row and column of each window.
      owned: (start, end) of the positions that belong to each window, for both axes.
    """

    window: tuple[int, int]
    starts: Int[np.ndarray, "n 2"]
    owned: Int[np.ndarray, "n 2 2"]

    def __len__(self) -> int:
        return len(self.starts)


def make_tiles(height: int, width: int, tile: int, stride: int, radius: int) -> Tiles:
    """Divides a picture into tiles and adds a margin around each.

    Args:
      height: of the picture.
      width: of the picture.
      tile: maximum side of a tile in pixels, rounded up to a multiple of `stride`.
      stride: of the deepest layer, see `genjax.models.vgg.reach`.
      radius: of that layer's receptive field; the margin is at least as wide.
    """
    (rows, row_window), (columns, column_window) = (
        _along(length, tile, stride, radius) for length in (height, width)
    )
    pairs = [(r, c) for r in rows for c in columns]
    starts = np.array([[r[0], c[0]] for r, c in pairs], np.int32)
    owned = np.array([[r[1:], c[1:]] for r, c in pairs], np.int32)
    return Tiles((row_window, column_window), starts, owned)


def _along(
    length: int, tile: int, stride: int, radius: int
) -> tuple[list[tuple[int, int, int]], int]:
    """Returns ([(start, start of owned, end of owned)], window) along one axis.

    Windows start at multiples of the stride, as poolings do. Poolings drop the remainder at the
    picture's end, so every window ends with a remainder of the same length.
    """
    tile, halo = (-(-n // stride) * stride for n in (tile, radius))
    remainder = length % stride
    window = min(tile + 2 * halo + remainder, length)
    count = max(1, -(-(length - remainder) // tile))
    edges = [i * tile for i in range(count)] + [length]
    starts = [min(max(edge - halo, 0), length - window) for edge in edges[:-1]]
    return list(zip(starts, edges[:-1], edges[1:])), window


def ownership(
    start: Int[Array, "2"],
    owned: Int[Array, "2 2"],
    window: tuple[int, int],
    shape: tuple[int, ...],
) -> Float[Array, "h w"]:
    """Returns a mask, 1 at the positions of an activation that belong to a window.

    Args:
      start: an element of `Tiles.starts`.
      owned: an element of `Tiles.owned`.
      window: `Tiles.window`.
      shape: (h, w, ...), of the activation in this window.
    """
    masks = []
    for axis in range(2):
        stride = window[axis] // shape[axis]
        position = start[axis] + jnp.arange(shape[axis]) * stride
        masks.append((position >= owned[axis, 0]) & (position < owned[axis, 1]))
    return (masks[0][:, None] & masks[1]).astype(jnp.float32)


def sum_over_tiles(
    tiles: Tiles, fn: Callable[..., Any], *images: Float[Array, "_ height width _"]
) -> Any:
    """Returns the sum of `fn` over all windows, differentiable with the memory of one.

    Args:
      tiles: the windows.
      fn: (start int32 [2], owned int32 [2, 2], *windows [B, h, w, C]) -> pytree of sums.
      *images: what to cut the windows from.
    """
    positions = jnp.asarray(tiles.starts), jnp.asarray(tiles.owned)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def sums_of_window(start, owned, *images):
        zero = jnp.zeros_like(start[0])
        windows = [
            lax.dynamic_slice(x, (zero, *start, zero), (x.shape[0], *tiles.window, x.shape[-1]))
            for x in images
        ]
        return fn(start, owned, *windows)

    shapes = jax.eval_shape(sums_of_window, positions[0][0], positions[1][0], *images)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(total, position):
        return jax.tree.map(jnp.add, total, sums_of_window(*position, *images)), None

    return lax.scan(body, zeros, positions)[0]
