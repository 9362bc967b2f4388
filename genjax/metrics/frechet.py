"""Fréchet distance between the Gaussians that fit two sets of features (Heusel et al. 2017).

  d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2)

On Inception's features, of 50,000 images, this is FID; on others it must be called otherwise.
"""

import dataclasses

import numpy as np

from genjax.metrics.checks import check_features


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and summed outer products about the mean, float64, of features seen so far.

    Attributes:
      count: int.
      mean: [D].
      scatter: [D, D], sum over the features of (x - mean) (x - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features):
        """Of one batch, [N, D]."""
        x = check_features(features)
        mean = x.mean(axis=0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def __add__(self, other):
        """Of both sets together (Chan et al. 1979), without cancellation."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.scatter
            + other.scatter
            + np.outer(apart, apart) * (self.count * other.count / count),
        )

    @property
    def covariance(self):
        """[D, D], unbiased."""
        return self.scatter / (self.count - 1)


def frechet_distance(a, b):
    """d^2 between two `Moments`, each of at least 2 features.

    The trace of the root is taken from eigenvalues of a symmetric matrix: no matrix square root of
    a product, whose rounding others repair by adding to the diagonal.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    between = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_of_root = np.sqrt(np.maximum(between, 0)).sum()
    shift = np.sum((a.mean - b.mean) ** 2)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return float(shift + spread)
