"""What every metric asks of its arrays, and distances between all pairs in blocks of rows."""

import numpy as np

from genjax.errors import UserError

# Of one block of a pairwise matrix, 64 MiB in float64.
BLOCK_ELEMENTS = 2**23


def as_features(features, name, at_least=1):
    """Rows of finite numbers as float64 [n, d].

    Args:
      features: array [n, d] of any real dtype.
      name: what the message calls it.
      at_least: the smallest n that will do.

    Raises:
      UserError: it is something else.
    """
    x = np.asarray(features)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "fiub":
        raise UserError(f"{name}: wanted numbers [n, d], got {x.dtype} {list(x.shape)}")
    if len(x) < at_least:
        raise UserError(f"{name}: {len(x)} rows are too few, {at_least} are the least")
    x = x.astype(np.float64, copy=False)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise UserError(
            f"{name}: {bad.sum()} of {len(x)} rows have NaN or infinity, the first is row "
            f"{bad.argmax()}"
        )
    return x


def as_feature_pair(x, y, names, at_least=1):
    """Two sets in one feature space, float64 [m, d] and [n, d]; as `as_features`."""
    x, y = (as_features(a, name, at_least) for a, name in zip((x, y), names))
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{names[0]} and {names[1]} are in different spaces: {x.shape[1]} and {y.shape[1]} "
            "features"
        )
    return x, y


def as_labels(labels, num_classes, name="labels"):
    """Class indices [n] in 0 ... num_classes - 1 as int64, or UserError."""
    x = np.asarray(labels)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise UserError(f"{name}: wanted integers [n], got {x.dtype} {list(x.shape)}")
    outside = (x < 0) | (x >= num_classes)
    if outside.any():
        raise UserError(
            f"{name}: {x[outside][0]} at {outside.argmax()} is not in 0 ... {num_classes - 1}"
        )
    return x.astype(np.int64, copy=False)


def log_softmax(logits):
    """log p(y | x) from logits or unnormalised log-probabilities; [n, k] -> [n, k]."""
    x = as_features(logits, "logits")
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def row_blocks(num_rows, row_elements):
    """Slices that cut rows into blocks of at most BLOCK_ELEMENTS, at least one row each."""
    size = max(1, BLOCK_ELEMENTS // row_elements)
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def squared_distances(x, y):
    """|x_i - y_j|^2 for all pairs: float64 [m, d], [n, d] -> [m, n].

    By the expansion |x|^2 + |y|^2 - 2 x.y, which is one matrix product. What lies below its
    rounding error is set to 0, so that equal rows are at distance 0.
    """
    norms = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    out = norms - 2 * (x @ y.T)
    out[out < x.shape[1] * np.finfo(np.float64).eps * norms] = 0
    return out
