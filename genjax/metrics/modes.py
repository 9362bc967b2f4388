"""How many modes of a labelled distribution a generator reaches (Stacked MNIST).

The protocol of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018): a frozen classifier
labels 26,000 generated images, each three stacked digits, so there are 1000 modes.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import as_labels


def stacked_labels(digits):
    """The mode of three stacked digits, one a channel: [n, 3] in 0 ... 9 -> [n] in 0 ... 999."""
    digits = np.asarray(digits)
    if digits.ndim != 2 or digits.shape[1] != 3:
        raise UserError(f"digits: wanted [n, 3], got {list(digits.shape)}")
    return as_labels(digits.ravel(), 10, "digits").reshape(-1, 3) @ (100, 10, 1)


def mode_counts(labels, num_modes):
    """Images of each mode, from labels [n]: int64 [num_modes]. Batches add up."""
    return np.bincount(as_labels(labels, num_modes), minlength=num_modes)


def modes_reached(counts):
    """Modes with at least one image."""
    return int(np.count_nonzero(counts))


def reverse_kl(counts):
    """KL(generated modes || uniform) in nats: 0 if all are equally frequent, log k for one alone.

    n images of the uniform distribution itself have about (k - 1) / 2n: 0.019 for 26,000 images
    and 1000 modes.
    """
    counts = np.asarray(counts)
    if counts.sum() == 0:
        raise UserError("no labels, so no distribution over modes")
    p = counts[counts > 0] / counts.sum()
    return float((p * np.log(p * len(counts))).sum())
