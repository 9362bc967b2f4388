"""Fréchet distance between Gaussians fitted to two sets of features.

Dowson & Landau 1982; for generated images Heusel et al. 2017, eq. 6. It is called FID with one
feature network only, the Inception of 2015. It is biased: never compare values of different numbers
of images.
"""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_features
from genjax.typing import Float


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of feature vectors, accumulated batch by batch.

    `moments = moments.update(batch)` adds a batch; it returns new moments and does not change the
    old ones. To save moments, save the three fields.

    Attributes:
      count: n, the number of vectors.
      mean: float64.
      scatter: float64, the sum over vectors of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def zero(cls, dim: int) -> "Moments":
        """Returns the moments of no vectors, in `dim` dimensions."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: ArrayLike) -> "Moments":
        """Computes the moments of one batch [n, d]."""
        x = as_features(features, "features")
        mean = x.mean(axis=0)
        deviations = x - mean
        return cls(len(x), mean, deviations.T @ deviations)

    def update(self, features: ArrayLike) -> "Moments":
        """Adds one more batch [n, d]."""
        return self.merge(Moments.of(features))

    def merge(self, other: "Moments") -> "Moments":
        """Computes the moments of both sets together (Chan, Golub & LeVeque 1983).

        From sums of deviations from each mean: raw sums of x x^T would cancel where the mean is
        large compared with the standard deviation.
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
    def cov(self) -> Float[np.ndarray, "d d"]:
        """Unbiased covariance (ddof = 1); its rank is below d where n <= d."""
        if self.count < 2:
            raise UserError(f"a covariance needs 2 feature vectors, there are {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2), which is a square.

    The trace of the root is the sum of the roots of the eigenvalues. They belong to a symmetric
    positive semidefinite matrix, unlike those of C_1 C_2, so the result has no imaginary part to
    discard, and covariances of low rank need no jitter.

    Args:
      a, b: moments in one feature space.

    Returns:
      A number >= 0, with a rounding error of about 1e-8 (tr C_1 + tr C_2).
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"moments of {len(a.mean)} and of {len(b.mean)} features have no distance")
    eigenvalues, vectors = np.linalg.eigh(a.cov)
    root = vectors * np.sqrt(_not_negative(eigenvalues))  # C_1 = root root^T
    trace_of_root = np.sqrt(_not_negative(np.linalg.eigvalsh(root.T @ b.cov @ root))).sum()
    distance = np.square(a.mean - b.mean).sum()
    distance += np.trace(a.cov) + np.trace(b.cov) - 2 * trace_of_root
    return max(float(distance), 0.0)


def _not_negative(eigenvalues: np.ndarray) -> np.ndarray:
    """Clips at 0: rounding makes the zeros of a semidefinite matrix a little negative."""
    return np.maximum(eigenvalues, 0)
