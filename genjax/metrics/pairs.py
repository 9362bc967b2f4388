"""All pairs of rows of two sets, tile by tile: each inner product is computed once for all metrics.

Of one set with itself, only half of the products are: those of (i, j) and of (j, i) are equal. A
tile is float64, whatever the sets are; they are never converted as a whole.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from genjax.metrics import arrays
from genjax.typing import Float, Shaped


@dataclasses.dataclass(frozen=True)
class Tile:
    """Inner products of some rows of a set x with some of a set y.

    Attributes:
      rows, columns: which rows of x, and which of y.
      products: x_i . y_j; not to be changed, other metrics read it, too.
      row_norms, column_norms: |x_i|^2, |y_j|^2.
      mirrored: whether x and y are one set, of which no other tile has these pairs transposed.
      dim: d, the number of features.
    """

    rows: slice
    columns: slice
    products: Float[np.ndarray, "r c"]
    row_norms: Float[np.ndarray, " r"]
    column_norms: Float[np.ndarray, " c"]
    mirrored: bool
    dim: int

    @functools.cached_property
    def squared_distances(self) -> Float[np.ndarray, "r c"]:
        """|x_i - y_j|^2, by the expansion |x|^2 + |y|^2 - 2 x.y.

        Values below its rounding error are set to 0, so that equal rows are at distance 0.
        """
        norms = self.row_norms[:, None] + self.column_norms
        out = -2 * self.products
        out += norms
        norms *= self.dim * np.finfo(np.float64).eps
        out[out < norms] = 0
        return out


@runtime_checkable
class Comparison(Protocol):
    """A metric of two sets that is computed from tiles, in the order of these methods."""

    def within(self, which: int, tile: Tile) -> None:
        """Adds a tile of the first set with itself (`which` = 0), or of the second one (1)."""

    def between(self, tile: Tile) -> None:
        """Adds a tile of the first set with the second one."""

    def values(self) -> tuple[Any, ...]:
        """Returns the numbers, after all tiles."""


def visit_pairs(
    x: Shaped[np.ndarray, "m d"], y: Shaped[np.ndarray, "n d"], comparisons: Sequence[Comparison]
) -> None:
    """Shows every comparison all pairs of x with x, then of y with y, then of x with y."""
    norms = squared_norms(x), squared_norms(y)
    for which, features in enumerate((x, y)):
        for tile in tiles(features, None, norms[which], norms[which]):
            for comparison in comparisons:
                comparison.within(which, tile)
    for tile in tiles(x, y, *norms):
        for comparison in comparisons:
            comparison.between(tile)


def squared_norms(x: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Computes |x_i|^2 of all rows, in float64."""
    out = np.empty(len(x))
    for block in arrays.row_blocks(len(x), x.shape[1]):
        rows = x[block].astype(np.float64, copy=False)
        out[block] = np.einsum("nd,nd->n", rows, rows)
    return out


def tiles(
    x: Shaped[np.ndarray, "m d"],
    y: Shaped[np.ndarray, "n d"] | None,
    x_norms: Float[np.ndarray, " m"],
    y_norms: Float[np.ndarray, " n"],
) -> Iterator[Tile]:
    """Yields the tiles of all pairs of x and y; where y is None, those of x with itself.

    Args:
      x, y: real numbers of any dtype.
      x_norms, y_norms: their `squared_norms`.
    """
    one_set, y = y is None, x if y is None else y
    side = max(1, math.isqrt(arrays.BLOCK_ELEMENTS))
    blocks = lambda n: (slice(i, min(i + side, n)) for i in range(0, n, side))
    for rows in blocks(len(x)):
        here = x[rows].astype(np.float64, copy=False)
        for columns in blocks(len(y)):
            if one_set and columns.start < rows.start:
                continue
            same = one_set and columns == rows
            there = here if same else y[columns].astype(np.float64, copy=False)
            products, mirrored = here @ there.T, one_set and not same
            norms = x_norms[rows], y_norms[columns]
            yield Tile(rows, columns, products, *norms, mirrored, x.shape[1])
