"""Nearest training images of generated ones, and how many of these are copies."""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, check_feature_pair, row_blocks
from genjax.metrics.pairs import Tile, squared_norms, tiles
from genjax.typing import Float, Int


def nearest_neighbours(
    queries: ArrayLike, training: ArrayLike, k: int = 2
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Finds the k nearest training points of each query, the nearest first.

    Args:
      queries: features or pixels [n, d], of generated images or of others not trained on.
      training: [m, d] in the same space, m >= k.
      k: number of neighbours.

    Returns:
      (indices int64 into `training`, Euclidean distances float64).
    """
    if k < 1:
        raise UserError(f"k={k} nearest neighbours, at least 1 is needed")
    queries, training = check_feature_pair(queries, training, ("queries", "training set"))
    if len(training) < k:
        raise UserError(f"training set: {len(training)} rows are too few for {k} neighbours")
    nearest = _Nearest(len(queries), k)
    # Of the smaller set, a block is converted once for each of the larger one.
    for tile in tiles(training, queries, squared_norms(training), squared_norms(queries)):
        nearest.add(tile)
    indices, distances = nearest.indices, np.empty((len(queries), k))
    for block in row_blocks(len(queries), k * queries.shape[1]):
        # Again without the rounding error of the expansion, which matters most for a near copy.
        differences = training[indices[block]] - queries[block, None].astype(np.float64)
        exact = np.linalg.norm(differences, axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[block] = np.take_along_axis(indices[block], order, axis=1)
        distances[block] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


class _Nearest:
    """The k nearest of all training points to each of n queries, tile by tile.

    Attributes:
      indices: of them, in no order.
    """

    def __init__(self, n: int, k: int):
        self.indices: Int[np.ndarray, "n k"] = np.zeros((n, k), np.int64)
        self._squares: Float[np.ndarray, "n k"] = np.full((n, k), np.inf)

    def add(self, tile: Tile) -> None:
        """Adds a tile whose rows are training points, and whose columns are queries."""
        found, distances = tile.columns, tile.squared_distances.T
        # Most tiles have no nearer one for most queries.
        nearer = np.flatnonzero(distances.min(axis=1) < self._squares[found].max(axis=1))
        distances, queries = distances[nearer], found.start + nearer
        k = min(self.indices.shape[1], distances.shape[1])
        near = np.argpartition(distances, k - 1, axis=1)[:, :k]
        squares = np.take_along_axis(distances, near, axis=1)
        squares = np.concatenate([self._squares[queries], squares], axis=1)
        indices = np.concatenate([self.indices[queries], near + tile.rows.start], axis=1)
        kept = np.argpartition(squares, self.indices.shape[1] - 1, axis=1)
        kept = kept[:, : self.indices.shape[1]]
        self._squares[queries] = np.take_along_axis(squares, kept, axis=1)
        self.indices[queries] = np.take_along_axis(indices, kept, axis=1)


def copying_rate(queries: ArrayLike, training: ArrayLike, ratio: float = 1 / 3) -> float:
    """Computes the share of copies: d(nearest) < ratio d(second nearest) in the training set.

    The criterion of Yoon et al. 2023 and Gu et al. 2023, who use pixels. It is not 0 for images
    that were not trained on: compare it with the rate of held-out real images. If a training image
    occurs twice, only exact copies of it are found.

    Args:
      queries: [n, d].
      training: [m, d], m >= 2, in the same space.
      ratio: the threshold.
    """
    _, distances = nearest_neighbours(queries, training)
    return share_of_copies(distances, ratio)


def share_of_copies(distances: Float[np.ndarray, "n k"], ratio: float = 1 / 3) -> float:
    """Computes `copying_rate` from sorted distances to the nearest training images, k >= 2."""
    first, second = distances[:, 0], distances[:, 1]
    return float(((first < ratio * second) | (first == 0)).mean())
