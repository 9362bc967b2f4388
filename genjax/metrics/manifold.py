"""Fidelity and diversity as separate numbers: precision and recall, density and coverage.

The manifold of a set is the union of balls around its points, each with the distance to the k-th
nearest other point as its radius. The point itself is not counted; another one equal to it is.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_feature_pair, row_blocks, squared_distances
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
    real, generated = _as_sets(real, generated, k)
    real_radii, generated_radii = _squared_radii(real, k), _squared_radii(generated, k)
    precise, recalled = 0, np.zeros(len(real), bool)
    for block in row_blocks(len(generated), len(real)):
        distances = squared_distances(generated[block], real)
        precise += (distances <= real_radii).any(axis=1).sum()
        recalled |= (distances <= generated_radii[block, None]).any(axis=0)
    return float(precise / len(generated)), float(recalled.mean())


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
    real, generated = _as_sets(real, generated, k)
    radii = _squared_radii(real, k)
    inside, covered = 0, np.zeros(len(real), bool)
    for block in row_blocks(len(generated), len(real)):
        in_ball = squared_distances(generated[block], real) < radii
        inside += in_ball.sum()
        covered |= in_ball.any(axis=0)
    return float(inside / (k * len(generated))), float(covered.mean())


def _as_sets(
    real: ArrayLike, generated: ArrayLike, k: int
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    if k < 1:
        raise UserError(f"k={k} neighbours make no ball, at least 1 is needed")
    return as_feature_pair(real, generated, ("real features", "generated features"), at_least=k + 1)


def _squared_radii(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Computes the squared distance of each point to its k-th nearest other point."""
    radii = np.empty(len(x))
    for block in row_blocks(len(x), len(x)):
        # The point itself is the nearest, at distance 0, so the k-th other one has index k.
        radii[block] = np.partition(squared_distances(x[block], x), k, axis=1)[:, k]
    return radii
