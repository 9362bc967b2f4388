"""Does a model repeat its training images? Their nearest neighbours, and a copying rate."""

import numpy as np

from genjax.metrics.checks import check_pair
from genjax.metrics.manifold import BLOCK, distances

# Of the distances to the nearest and to the second nearest training image: an image closer than
# this is a copy (Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to
# memorize").
COPY_RATIO = 1 / 3


def nearest(queries, training, count=2):
    """The nearest training features of each query.

    Args:
      queries, training: [N, D], [M, D] with M >= count.
      count: how many.

    Returns:
      (int [N, count] indices into `training`, nearest first; float64 [N, count] distances).
    """
    queries, training = check_pair(queries, training)
    indices = np.empty((len(queries), count), np.int64)
    found = np.empty((len(queries), count))
    for start in range(0, len(queries), BLOCK):
        here = slice(start, start + BLOCK)
        apart = distances(queries[here], training)
        some = np.argpartition(apart, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(apart, some, axis=1), axis=1, kind="stable")
        indices[here] = np.take_along_axis(some, order, axis=1)
        # Again by differences: the expanded square has lost the digits of a small distance.
        apart = queries[here, None] - training[indices[here]]
        found[here] = np.sqrt(np.sum(apart**2, axis=2))
    return indices, found


def copying_rate(distances_to_nearest):
    """Share of images that are copies, of `nearest`'s distances [N, 2 or more].

    What held-out real images get is the rate to compare with: data repeat themselves too.
    """
    first, second = distances_to_nearest[:, 0], distances_to_nearest[:, 1]
    return float(np.mean(first < COPY_RATIO * second))
