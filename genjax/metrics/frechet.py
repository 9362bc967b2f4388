"""Fréchet distance between Gaussians fitted to two sets of features.

Dowson & Landau 1982; for generated images Heusel et al. 2017, eq. 6. It is called FID on one
feature network only, the Inception of 2015, and it is biased: never compare values of different
numbers of images.
"""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import as_features


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of feature vectors, summed up batch by batch.

    `moments = moments.update(batch)` adds a batch; it returns new moments and leaves the old as
    they are. The three fields are all there is to save.

    Attributes:
      count: n, how many vectors.
      mean: float64 [d].
      scatter: float64 [d, d], the sum over vectors of (x - mean)(x - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def zero(cls, dim):
        """Of no vectors, in `dim` dimensions."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features):
        """Of one batch [n, d]."""
        x = as_features(features, "features")
        mean = x.mean(axis=0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def update(self, features):
        """With one more batch [n, d]."""
        return self.merge(Moments.of(features))

    def merge(self, other):
        """Of both sets together (Chan, Golub & LeVeque 1983).

        Sums of deviations from each mean: raw sums of x x^T would cancel where the mean is large
        against the spread.
        """
        if self.mean.shape != other.mean.shape:
            raise UserError(
                f"moments of {len(self.mean)} and of {len(other.mean)} features cannot be merged"
            )
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        between = np.outer(shift, shift) * (self.count * other.count / count)
        mean = self.mean + shift * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def cov(self):
        """Unbiased covariance (ddof = 1), float64 [d, d]; of rank below d where n <= d."""
        if self.count < 2:
            raise UserError(f"a covariance needs 2 feature vectors, there are {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a, b):
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2), squared as is the custom.

    The trace of the root is the sum of the roots of the eigenvalues. They are those of a symmetric
    matrix without negative ones, unlike those of C_1 C_2, so there is no complex result to cut off,
    and covariances of low rank need no jitter.

    Args:
      a, b: `Moments` in one feature space.

    Returns:
      A float >= 0; about 1e-8 (tr C_1 + tr C_2) of it is rounding.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"moments of {len(a.mean)} and of {len(b.mean)} features have no distance")
    eigenvalues, vectors = np.linalg.eigh(a.cov)
    root = vectors * np.sqrt(_not_negative(eigenvalues))  # C_1 = root root^T
    trace_of_root = np.sqrt(_not_negative(np.linalg.eigvalsh(root.T @ b.cov @ root))).sum()
    distance = np.square(a.mean - b.mean).sum()
    distance += np.trace(a.cov) + np.trace(b.cov) - 2 * trace_of_root
    return max(float(distance), 0.0)


def _not_negative(eigenvalues):
    """Rounding makes the zeros of a semidefinite matrix a little negative."""
    return np.maximum(eigenvalues, 0)
