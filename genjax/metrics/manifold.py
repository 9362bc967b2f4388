"""Fidelity and diversity as separate numbers: precision and recall, density and coverage.

The manifold of a set is the union of balls around its points, each with the distance to the k-th
nearest other point as its radius. The point itself is not counted; another one equal to it is.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, check_feature_pair
from genjax.metrics.pairs import Comparison, Tile, visit_pairs
from genjax.typing import Float


def precision_recall(real: ArrayLike, generated: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Computes improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision is the share of generated points inside at least one real point's ball; recall is the
    share of real points inside at least one generated point's ball. The balls are closed (<=), as
    published.

    Args:
      real: features [m, d], m > k.
      generated: features [n, d], n > k.

    Returns:
      (precision, recall), each in [0, 1].
    """
    return _compared(real, generated, PrecisionRecall, k)


def density_coverage(real: ArrayLike, generated: ArrayLike, k: int = 5) -> tuple[float, float]:
    """Computes density and coverage (Naeem et al. 2020), with balls around real points alone.

    Density is the mean number of real points' balls that contain a generated point, over k;
    coverage is the share of real points whose ball contains a generated point. The balls are open
    (<), as in the authors' code. Another sample of the real distribution has a density of 1 on
    average, and a coverage of about 1 - 2^-k.

    Args:
      real: features [m, d], m > k.
      generated: features [n, d], n > k.

    Returns:
      (density >= 0, which may exceed 1, coverage in [0, 1]).
    """
    return _compared(real, generated, DensityCoverage, k)


def _compared(
    real: ArrayLike, generated: ArrayLike, kind: type[Comparison], k: int
) -> tuple[float, float]:
    if k < 1:
        raise UserError(f"k={k} neighbours make no ball, at least 1 is needed")
    names = ("real features", "generated features")
    real, generated = check_feature_pair(real, generated, names, at_least=k + 1)
    comparison = kind(len(real), len(generated), k)
    visit_pairs(real, generated, [comparison])
    return comparison.values()


class PrecisionRecall:
    """`precision_recall` of m real and n generated points, from `visit_pairs`."""

    at_least = 4  # for the default k

    def __init__(self, m: int, n: int, k: int = 3):
        self._radii = _Radii(m, k), _Radii(n, k)
        self._recalled, self._precise = np.zeros(m, bool), np.zeros(n, bool)

    def within(self, which: int, tile: Tile) -> None:
        """Adds a tile of one set with itself."""
        self._radii[which].add(tile)

    def between(self, tile: Tile) -> None:
        """Adds a tile of both sets."""
        real, generated = (radii.squares for radii in self._radii)
        distances = tile.squared_distances
        self._precise[tile.columns] |= (distances <= real[tile.rows, None]).any(axis=0)
        self._recalled[tile.rows] |= (distances <= generated[tile.columns]).any(axis=1)

    def values(self) -> tuple[float, float]:
        """Returns (precision, recall), after all tiles."""
        return float(self._precise.mean()), float(self._recalled.mean())


class DensityCoverage:
    """`density_coverage` of m real and n generated points, from `visit_pairs`."""

    at_least = 6  # for the default k

    def __init__(self, m: int, n: int, k: int = 5):
        self._radii = _Radii(m, k)
        self._inside, self._covered = 0, np.zeros(m, bool)
        self._balls = k * n

    def within(self, which: int, tile: Tile) -> None:
        """Adds a tile of one set with itself."""
        if which == 0:
            self._radii.add(tile)

    def between(self, tile: Tile) -> None:
        """Adds a tile of both sets."""
        in_ball = tile.squared_distances < self._radii.squares[tile.rows, None]
        self._inside += int(np.count_nonzero(in_ball))
        self._covered[tile.rows] |= in_ball.any(axis=1)

    def values(self) -> tuple[float, float]:
        """Returns (density, coverage), after all tiles."""
        return self._inside / self._balls, float(self._covered.mean())


class _Radii:
    """Squared distances of each of n points to its k-th nearest other one, tile by tile."""

    def __init__(self, n: int, k: int):
        # The point itself is the nearest, at distance 0, so the k-th other one has index k.
        self._nearest: Float[np.ndarray, "n k1"] = np.full((n, k + 1), np.inf)

    @property
    def squares(self) -> Float[np.ndarray, " n"]:
        """The squared radii, after all tiles."""
        return self._nearest[:, -1]

    def add(self, tile: Tile) -> None:
        """Adds a tile of the points with themselves."""
        self._add(tile.rows, tile.squared_distances)
        if tile.mirrored:
            self._add(tile.columns, tile.squared_distances.T)

    def _add(self, rows: slice, distances: Float[np.ndarray, "r c"]) -> None:
        k = self._nearest.shape[1] - 1
        near = np.partition(distances, min(k, distances.shape[1] - 1), axis=1)[:, : k + 1]
        both = np.concatenate([self._nearest[rows], near], axis=1)
        self._nearest[rows] = np.partition(both, k, axis=1)[:, : k + 1]
