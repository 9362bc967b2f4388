"""A picture worked through in overlapping windows, so that memory does not grow with it.

What is asked of the windows is a sum over positions of activations. Each position belongs to one
window, in which it lies so deep that everything its activation depends on is inside: the sums, and
by automatic differentiation their gradients, are those of the whole picture up to rounding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """Windows of one size over a picture.

    Attributes:
      window: (height, width) of each.
      starts: int32 [N, 2], where each begins.
      owned: int32 [N, 2, 2], from where to where, (begin, end) of each axis, positions are its own.
    """

    window: tuple[int, int]
    starts: np.ndarray
    owned: np.ndarray

    def __len__(self):
        return len(self.starts)


def make_tiles(height, width, tile, stride, radius):
    """Tiles of `tile` pixels a side at most, and what they have to see around.

    Args:
      height, width: of the picture.
      tile: pixels, rounded up to a multiple of `stride`.
      stride, radius: of the deepest layer, see `genjax.models.vgg.reach`.
    """
    (rows, row_window), (columns, column_window) = (
        _along(length, tile, stride, radius) for length in (height, width)
    )
    pairs = [(r, c) for r in rows for c in columns]
    starts = np.array([[r[0], c[0]] for r, c in pairs], np.int32)
    owned = np.array([[r[1:], c[1:]] for r, c in pairs], np.int32)
    return Tiles((row_window, column_window), starts, owned)


def _along(length, tile, stride, radius):
    """([(start, own from, own to)], window) along one axis.

    Windows begin at multiples of the stride, where poolings begin too; what is left over at the
    picture's end is at every window's end, as poolings drop it there.
    """
    tile, halo = (-(-n // stride) * stride for n in (tile, radius))
    left = length % stride
    window = min(tile + 2 * halo + left, length)
    count = max(1, -(-(length - left) // tile))
    edges = [i * tile for i in range(count)] + [length]
    starts = [min(max(edge - halo, 0), length - window) for edge in edges[:-1]]
    return list(zip(starts, edges[:-1], edges[1:])), window


def ownership(start, owned, window, shape):
    """float32 [h, w]: 1 at positions of an activation of `shape` that are a window's own."""
    masks = []
    for axis in range(2):
        stride = window[axis] // shape[axis]
        place = start[axis] + jnp.arange(shape[axis]) * stride
        masks.append((place >= owned[axis, 0]) & (place < owned[axis, 1]))
    return (masks[0][:, None] & masks[1]).astype(jnp.float32)


def sum_over_tiles(tiles, fn, *images):
    """The sum of `fn` over all windows, differentiable with the memory of one.

    Args:
      tiles: a `Tiles`.
      fn: (start int32 [2], owned int32 [2, 2], *windows [B, h, w, C]) -> pytree of sums.
      images: [B, H, W, C] each.
    """
    places = jnp.asarray(tiles.starts), jnp.asarray(tiles.owned)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def at(start, owned, *images):
        zero = jnp.zeros_like(start[0])
        windows = [
            lax.dynamic_slice(x, (zero, *start, zero), (x.shape[0], *tiles.window, x.shape[-1]))
            for x in images
        ]
        return fn(start, owned, *windows)

    shapes = jax.eval_shape(at, places[0][0], places[1][0], *images)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(total, place):
        return jax.tree.map(jnp.add, total, at(*place, *images)), None

    return lax.scan(body, zeros, places)[0]
