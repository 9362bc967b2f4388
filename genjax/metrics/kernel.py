"""Kernel distance between two sets of features (KID, Binkowski et al. 2018).

The squared maximum mean discrepancy under a cubic polynomial kernel. Unlike the Fréchet distance it
is unbiased: it can be compared between different numbers of images, and it is 0 within its error if
the two sets come from one distribution. It may be negative.
"""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_feature_pair, row_blocks
from genjax.typing import Float


def kernel_distance(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Computes the unbiased MMD^2 of two sets, and its standard error.

    The exact variance of this U-statistic (Hoeffding 1948; Sutherland & Deka 2019, for MMD) is

      4 a_x / m + 4 a_y / n + 2 b_xx / (m (m - 1)) + 2 b_yy / (n (n - 1)) + 4 b_xy / (m n)

    with a_x, a_y the variances of the witness E k(., X) - E k(., Y) over x and over y, and b the
    mean squares of the doubly centred kernels. If both sets come from one distribution the witness
    is flat, a = 0, and only the terms in b remain; otherwise those in a dominate. Each is estimated
    without bias from sums over rows, columns and squares. The estimates of the terms in a may be
    negative and are clipped at 0, so that the error is 5 to 25 % too large where the distance is 0
    (in simulations 96 to 100 % of distances are then within 2 errors). Elsewhere about 95 % are,
    fewer for a few dozen images in two dimensions, where the cube has heavy tails.

    The usual alternatives are not errors of this number: the standard deviation over random
    subsets, as published, is that of one subset, and the jackknife doubles the terms in b.

    Args:
      x: features [m, d], m >= 4.
      y: features [n, d], n >= 4.

    Returns:
      (distance, standard error).
    """
    x, y = as_feature_pair(x, y, ("the first features", "the second features"), at_least=4)
    m, n = len(x), len(y)
    xx, yy, xy = _kernel_sums(x), _kernel_sums(y), _kernel_sums(x, y)
    distance = xx.total / (m * (m - 1)) + yy.total / (n * (n - 1)) - 2 * xy.total / (m * n)

    b_xx, b_yy = _mean_square_within(xx), _mean_square_within(yy)
    b_xy = _mean_square_between(xy)
    # A row's mean is the witness plus noise of which these are the variances. The divisor m - 2
    # is that of the deviation of a row: m - 1 terms, minus the row's own part in all the others.
    a_x = np.var(xx.rows / (m - 2) - xy.rows / n, ddof=1) - b_xx / (m - 2) - b_xy / n
    a_y = np.var(yy.rows / (n - 2) - xy.columns / m, ddof=1) - b_yy / (n - 2) - b_xy / m
    witness = 4 * a_x / m + 4 * a_y / n
    noise = 2 * b_xx / (m * (m - 1)) + 2 * b_yy / (n * (n - 1)) + 4 * b_xy / (m * n)
    return float(distance), float(np.sqrt(max(witness, 0) + max(noise, 0)))


def kernel_distance_subsets(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> tuple[float, float]:
    """Computes mean and standard deviation of MMD^2 over random subsets, the published protocol.

    The deviation is that of one subset, not of the mean; `kernel_distance` has an error.

    Args:
      x, y: features [m, d], [n, d].
      rng: draws each subset, without replacement.
      subsets: their number.
      subset_size: rows of each.
    """
    x, y = as_feature_pair(x, y, ("the first features", "the second features"))
    if subset_size < 2 or subsets < 1 or subset_size > min(len(x), len(y)):
        raise UserError(
            f"{subsets} subsets of {subset_size} cannot be drawn from {len(x)} and {len(y)} rows"
        )
    distances = []
    for _ in range(subsets):
        a, b = (z[rng.choice(len(z), subset_size, replace=False)] for z in (x, y))
        within = _kernel_sums(a).total + _kernel_sums(b).total
        between = _kernel_sums(a, b).total
        distances.append(within / (subset_size * (subset_size - 1)) - 2 * between / subset_size**2)
    return float(np.mean(distances)), float(np.std(distances))


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Sums over a kernel matrix [m, n]; for one set with itself, without the diagonal."""

    rows: Float[np.ndarray, " m"]
    columns: Float[np.ndarray, " n"]
    squares: float

    @property
    def total(self) -> float:
        return self.rows.sum()


def _kernel_sums(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "n d"] | None = None) -> _Sums:
    """Sums k(x_i, y_j) = (x_i . y_j / d + 1)^3, one block at a time.

    Without y it sums k(x_i, x_j), i != j.
    """
    within = y is None
    y = x if within else y
    rows, columns, squares = np.empty(len(x)), np.zeros(len(y)), 0.0
    for block in row_blocks(len(x), len(y)):
        k = x[block] @ y.T / x.shape[1] + 1
        k = k * k * k
        if within:
            np.fill_diagonal(k[:, block], 0)
        rows[block] = k.sum(axis=1)
        columns += k.sum(axis=0)
        squares += np.vdot(k, k)
    return _Sums(rows, columns, squares)


def _mean_square_within(sums: _Sums) -> float:
    """Estimates E k~(X, X')^2 of the doubly centred kernel, unbiased.

    Székely & Rizzo 2014, section 2.
    """
    m = len(sums.rows)
    square = sums.squares - 2 / (m - 2) * np.square(sums.rows).sum()
    return (square + sums.total**2 / ((m - 1) * (m - 2))) / (m * (m - 3))


def _mean_square_between(sums: _Sums) -> float:
    """Estimates E k~(X, Y)^2: the residual mean square of a two-way layout of rows and columns."""
    m, n = len(sums.rows), len(sums.columns)
    square = sums.squares - np.square(sums.rows).sum() / n - np.square(sums.columns).sum() / m
    return (square + sums.total**2 / (m * n)) / ((m - 1) * (n - 1))
