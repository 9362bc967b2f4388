"""The number of modes of a labelled distribution that a generator reaches (Stacked MNIST).

The protocol of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018): a frozen classifier
labels 26,000 generated images, each of three stacked digits, so there are 1000 modes.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_labels
from genjax.typing import Int


def stacked_labels(digits: ArrayLike) -> Int[np.ndarray, " n"]:
    """Returns the mode, in 0 ... 999, of three digits [n, 3], one for each channel."""
    digits = np.asarray(digits)
    if digits.ndim != 2 or digits.shape[1] != 3:
        raise UserError(f"digits: must be [n, 3], got {list(digits.shape)}")
    return as_labels(digits.ravel(), 10, "digits").reshape(-1, 3) @ (100, 10, 1)


def mode_counts(labels: ArrayLike, num_modes: int) -> Int[np.ndarray, " modes"]:
    """Counts the images of each mode, from labels [n]; to be added over batches."""
    return np.bincount(as_labels(labels, num_modes), minlength=num_modes)


def modes_reached(counts: ArrayLike) -> int:
    """Counts the modes with at least one image."""
    return int(np.count_nonzero(counts))


def reverse_kl(counts: ArrayLike) -> float:
    """Computes KL(generated modes || uniform) in nats.

    It is 0 if all k modes are equally frequent, and log k for one mode alone. n images of the
    uniform distribution itself have about (k - 1) / 2n: 0.019 for 26,000 images and 1000 modes.
    """
    counts = np.asarray(counts)
    if counts.sum() == 0:
        raise UserError("no labels, so no distribution over modes")
    p = counts[counts > 0] / counts.sum()
    return float((p * np.log(p * len(counts))).sum())
