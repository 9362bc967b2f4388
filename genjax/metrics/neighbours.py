"""Nearest training images of generated ones, and how many of these are copies."""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_feature_pair, row_blocks, squared_distances
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
    queries, training = as_feature_pair(queries, training, ("queries", "training set"))
    if len(training) < k:
        raise UserError(f"training set: {len(training)} rows are too few for {k} neighbours")
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    for block in row_blocks(len(queries), max(len(training), k * queries.shape[1])):
        near = squared_distances(queries[block], training)
        near = np.argpartition(near, k - 1, axis=1)[:, :k]
        # Again without the rounding error of the expansion, which matters most for a near copy.
        exact = np.linalg.norm(training[near] - queries[block, None], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[block] = np.take_along_axis(near, order, axis=1)
        distances[block] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


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
    first, second = distances.T
    return float(((first < ratio * second) | (first == 0)).mean())
