"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

The manifold of a set of features is taken to be the union of balls about them, each as large as
the distance to the feature's k-th nearest neighbour, itself not counted.

  precision  share of generated features inside some real ball
  recall     share of real features inside some generated ball
  density    how many real balls a generated feature is inside, over k, on average
  coverage   share of real balls with a generated feature inside
"""

import numpy as np

from genjax.metrics.checks import check_pair

BLOCK = 1024  # rows of a distance matrix at a time
K_PRECISION = 3  # as published
K_DENSITY = 5  # as published


def distances(x, y):
    """Squared Euclidean distances [N, M] of features [N, D], [M, D]."""
    squared = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.maximum(squared, 0.0)


def radii(x, k):
    """Squared distance [N] of each feature to its k-th nearest neighbour in the same set."""
    out = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        part = distances(x[start : start + BLOCK], x)
        part[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        out[start : start + BLOCK] = np.partition(part, k - 1, axis=1)[:, k - 1]
    return out


def precision_recall(real, generated, k=K_PRECISION):
    """{"precision", "recall"} of features [N, D] and [M, D], more than k each.

    A feature on the edge of a ball is inside, as in the authors' code.
    """
    real, generated = check_pair(real, generated, at_least=k + 1)
    real_radii, generated_radii = radii(real, k), radii(generated, k)
    recalled, precise = np.zeros(len(real), bool), 0
    for start in range(0, len(generated), BLOCK):
        here = slice(start, start + BLOCK)
        apart = distances(generated[here], real)
        precise += np.any(apart <= real_radii, axis=1).sum()
        recalled |= np.any(apart <= generated_radii[here, None], axis=0)
    return {"precision": float(precise / len(generated)), "recall": float(recalled.mean())}


def density_coverage(real, generated, k=K_DENSITY):
    """{"density", "coverage"} of features [N, D] and [M, D], more than k real ones.

    A feature on the edge of a ball is outside, as in the authors' code.
    """
    real, generated = check_pair(real, generated, at_least=k + 1)
    edge = radii(real, k)
    covered, inside = np.zeros(len(real), bool), 0
    for start in range(0, len(generated), BLOCK):
        within = distances(generated[start : start + BLOCK], real) < edge
        inside += within.sum()
        covered |= within.any(axis=0)
    return {"density": float(inside / (k * len(generated))), "coverage": float(covered.mean())}
