"""Checks of the arrays that metrics take, blocks of their rows, and samples of them."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from genjax.errors import UserError
from genjax.typing import AnyArray, Float, Int, Shaped

# What `np.asarray` takes. The functions below check shapes and types, with messages for people.
ArrayLike: TypeAlias = AnyArray | Sequence[Any]

# Elements of one block of rows, and of one tile of a pairwise matrix: 8 MiB in float64.
BLOCK_ELEMENTS = 2**20

_SAMPLE_KEY = (20, 1_000)  # of `sample_order`


def sample_order(count: int) -> Int[np.ndarray, " count"]:
    """Returns a permutation of 0 ... count - 1, the same one in every run.

    Its first k elements are a random sample. The first k images of a dataset are none: a folder of
    classes is sorted by class.
    """
    return np.random.Generator(np.random.Philox(key=_SAMPLE_KEY)).permutation(count)


def as_features(features: ArrayLike, name: str, at_least: int = 1) -> Float[np.ndarray, "n d"]:
    """Converts rows of finite numbers to float64; see `check_features`."""
    return check_features(features, name, at_least).astype(np.float64, copy=False)


def check_features(features: ArrayLike, name: str, at_least: int = 1) -> Shaped[np.ndarray, "n d"]:
    """Returns rows of finite numbers in their own dtype, without a copy.

    Args:
      features: [n, d] of any real dtype.
      name: what messages call the array.
      at_least: the smallest n that is allowed.

    Raises:
      UserError: the array has another shape or dtype, too few rows, or NaN or infinity.
    """
    x = np.asarray(features)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "fiub":
        raise UserError(f"{name}: must be numbers [n, d], got {x.dtype} {list(x.shape)}")
    if len(x) < at_least:
        raise UserError(f"{name}: {len(x)} rows are too few, at least {at_least} are needed")
    bad = np.zeros(len(x), bool)
    for block in row_blocks(len(x), x.shape[1]) if x.dtype.kind == "f" else ():
        bad[block] = ~np.isfinite(x[block]).all(axis=1)
    if bad.any():
        raise UserError(
            f"{name}: {bad.sum()} of {len(x)} rows have NaN or infinity, the first is row "
            f"{bad.argmax()}"
        )
    return x


def check_feature_pair(
    x: ArrayLike, y: ArrayLike, names: tuple[str, str], at_least: int = 1
) -> tuple[Shaped[np.ndarray, "m d"], Shaped[np.ndarray, "n d"]]:
    """Checks two sets in one feature space; see `check_features`."""
    x, y = (check_features(a, name, at_least) for a, name in zip((x, y), names))
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{names[0]} and {names[1]} are in different spaces: {x.shape[1]} and {y.shape[1]} "
            "features"
        )
    return x, y


def as_labels(labels: ArrayLike, num_classes: int, name: str = "labels") -> Int[np.ndarray, " n"]:
    """Converts class indices [n] to int64; a UserError if one is not in 0 ... num_classes - 1."""
    x = np.asarray(labels)
    if x.ndim != 1 or x.dtype.kind not in "iu":
        raise UserError(f"{name}: must be integers [n], got {x.dtype} {list(x.shape)}")
    outside = (x < 0) | (x >= num_classes)
    if outside.any():
        raise UserError(
            f"{name}: {x[outside][0]} at {outside.argmax()} is not in 0 ... {num_classes - 1}"
        )
    return x.astype(np.int64, copy=False)


def log_softmax(logits: ArrayLike) -> Float[np.ndarray, "n k"]:
    """Computes log p(y | x) from logits or unnormalised log-probabilities [n, k]."""
    x = as_features(logits, "logits")
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def row_blocks(num_rows: int, row_elements: int) -> Iterator[slice]:
    """Yields slices that cut rows into blocks of at most BLOCK_ELEMENTS, or of one row."""
    size = max(1, BLOCK_ELEMENTS // row_elements)
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))
