"""Nearest training images of generated ones, and how many are copies."""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import as_feature_pair, row_blocks, squared_distances


def nearest_neighbours(queries, training, k=2):
    """The k nearest training points of each query, the nearest first.

    Args:
      queries: features or pixels [n, d], of generated images or of others not trained on.
      training: [m, d] in the same space, m >= k.

    Returns:
      (indices int64 [n, k] into `training`, Euclidean distances float64 [n, k]).
    """
    if k < 1:
        raise UserError(f"k={k} nearest neighbours, 1 is the least")
    queries, training = as_feature_pair(queries, training, ("queries", "training set"))
    if len(training) < k:
        raise UserError(f"training set: {len(training)} rows have no {k} nearest ones")
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    for block in row_blocks(len(queries), max(len(training), k * queries.shape[1])):
        near = squared_distances(queries[block], training)
        near = np.argpartition(near, k - 1, axis=1)[:, :k]
        # Once more without the rounding of the expansion, which matters most for a near copy.
        exact = np.linalg.norm(training[near] - queries[block, None], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[block] = np.take_along_axis(near, order, axis=1)
        distances[block] = np.take_along_axis(exact, order, axis=1)
    return indices, distances


def copying_rate(queries, training, ratio=1 / 3):
    """Share of queries that are copies: d(nearest) < ratio d(second nearest) in the training set.

    The criterion of Yoon et al. 2023 and Gu et al. 2023, on pixels in their case. It is not 0
    for images never seen; the rate of held-out real images is the one to compare with. Of a
    training image that is there twice, only exact copies are found.

    Args:
      queries: [n, d]; training: [m, d], m >= 2, in the same space.

    Returns:
      A float in [0, 1].
    """
    _, distances = nearest_neighbours(queries, training)
    first, second = distances.T
    return float(((first < ratio * second) | (first == 0)).mean())
