"""Fidelity and diversity apart: precision and recall, density and coverage.

Each set is a manifold, the union of balls around its points that reach to the k-th nearest other
point. The point itself is not counted among its k; another one that equals it is.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import as_feature_pair, row_blocks, squared_distances


def precision_recall(real, generated, k=3):
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    precision: the share of generated points inside at least one real point's ball; recall: of real
    points inside at least one generated point's. The balls are closed (<=), as published.

    Args:
      real: features [m, d], m > k.
      generated: features [n, d], n > k.

    Returns:
      (precision, recall), each in [0, 1].
    """
    real, generated = _as_sets(real, generated, k)
    real_radii, generated_radii = _squared_radii(real, k), _squared_radii(generated, k)
    precise, recalled = 0, np.zeros(len(real), bool)
    for block in row_blocks(len(generated), len(real)):
        distances = squared_distances(generated[block], real)
        precise += (distances <= real_radii).any(axis=1).sum()
        recalled |= (distances <= generated_radii[block, None]).any(axis=0)
    return float(precise / len(generated)), float(recalled.mean())


def density_coverage(real, generated, k=5):
    """Density and coverage (Naeem et al. 2020), about the real manifold alone.

    density: how many real points' balls hold a generated point, over k, on average; coverage: the
    share of real points whose ball holds a generated point. The balls are open (<), as in the
    authors' code. The density of one more sample of the real distribution is 1 on average, its
    coverage about 1 - 2^-k.

    Args:
      real: features [m, d], m > k.
      generated: features [n, d], n > k.

    Returns:
      (density >= 0, which may exceed 1, coverage in [0, 1]).
    """
    real, generated = _as_sets(real, generated, k)
    radii = _squared_radii(real, k)
    inside, covered = 0, np.zeros(len(real), bool)
    for block in row_blocks(len(generated), len(real)):
        in_ball = squared_distances(generated[block], real) < radii
        inside += in_ball.sum()
        covered |= in_ball.any(axis=0)
    return float(inside / (k * len(generated))), float(covered.mean())


def _as_sets(real, generated, k):
    if k < 1:
        raise UserError(f"k={k} neighbours make no ball, 1 is the least")
    return as_feature_pair(real, generated, ("real features", "generated features"), at_least=k + 1)


def _squared_radii(x, k):
    """Squared distance of each point to its k-th nearest other point; [n, d] -> [n]."""
    radii = np.empty(len(x))
    for block in row_blocks(len(x), len(x)):
        # The point itself is the nearest, at distance 0, so its k-th other one is at place k.
        radii[block] = np.partition(squared_distances(x[block], x), k, axis=1)[:, k]
    return radii
