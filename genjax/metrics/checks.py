"""Features that no number can be made of are refused, in one line."""

import numpy as np

from genjax.errors import UserError


def check_features(features, at_least=1):
    """Features as float64 [N, D].

    Raises:
      UserError: another shape, fewer than `at_least`, or numbers that are not finite.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 2:
        raise UserError(f"features must be [number, dimensions], not {list(x.shape)}")
    if len(x) < at_least:
        raise UserError(f"{len(x)} features are too few: at least {at_least} are needed")
    if not np.isfinite(x).all():
        bad = int(np.argmin(np.isfinite(x).all(axis=1)))
        raise UserError(f"the features of image {bad} are not finite")
    return x


def check_pair(x, y, at_least=1):
    """Two sets of features of the same dimension; see `check_features`."""
    x, y = check_features(x, at_least), check_features(y, at_least)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions do not compare")
    return x, y
