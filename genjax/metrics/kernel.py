"""Kernel distance (Binkowski et al. 2018): the squared maximum mean discrepancy of two sets.

  MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),
  k(x, y) = (x^T y / D + 1)^3.

Unbiased, so it may be negative. On Inception's features this is KID.
"""

import numpy as np

from genjax.metrics.checks import check_pair

BLOCK = 1024  # rows of a kernel matrix at a time


def kernel(x, y):
    """[N, M] of features [N, D] and [M, D]."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def kernel_distance(x, y):
    """MMD^2 over all pairs, and its standard error.

    The variance of this U-statistic has two parts. With the projections
    a_i = mean_j k(x_i, x_j) - mean_j k(x_i, y_j), and b_j likewise, the first is
    4 Var[a] / N + 4 Var[b] / M; it vanishes where the distributions are the same. What is left
    then is the second, 2 s_xx / N^2 + 2 s_yy / M^2 + 4 s_xy / (N M), where s is the mean square of
    a kernel matrix centred by rows and columns. (Serfling 1980, section 5.2; the variance of a_i
    over the sample holds, and is freed here of, the noise of its own means.)

    Args:
      x, y: features [N, D], [M, D]; at least 3 each.

    Returns:
      (float, float).
    """
    x, y = check_pair(x, y, at_least=3)
    xx, _, s_xx = _means(x, x)
    yy, _, s_yy = _means(y, y)
    xy, yx, s_xy = _means(x, y)
    n, m = len(x), len(y)
    first_x = max(0.0, np.var(xx - xy, ddof=1) - s_xx / n - s_xy / m)
    first_y = max(0.0, np.var(yy - yx, ddof=1) - s_yy / m - s_xy / n)
    first = 4 * first_x / n + 4 * first_y / m
    second = 2 * s_xx / n**2 + 2 * s_yy / m**2 + 4 * s_xy / (n * m)
    value = xx.mean() + yy.mean() - 2 * xy.mean()
    return float(value), float(np.sqrt(first + second))


def _means(x, y):
    """Row and column means of k(x, y), and the mean square of what they leave; `x is y` leaves out
    the diagonal."""
    same = x is y
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
    for start in range(0, len(x), BLOCK):
        part = kernel(x[start : start + BLOCK], y)
        if same:
            part[np.arange(len(part)), start + np.arange(len(part))] = 0.0
        rows[start : start + BLOCK] = part.sum(axis=1)
        columns += part.sum(axis=0)
        squares += np.sum(part**2)
    rows, columns = rows / (len(y) - same), columns / (len(x) - same)
    left = squares / (len(x) * (len(y) - same)) - np.mean(rows**2) - np.mean(columns**2)
    return rows, columns, max(0.0, left + rows.mean() ** 2)
