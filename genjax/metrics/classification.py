"""How right a classifier is, and how well it knows.

What is a mean over examples comes per example; the rest as sums over a batch, which add up over
batches.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import as_labels, log_softmax


def _log_probs_and_labels(logits, labels):
    log_probs = log_softmax(logits)
    labels = as_labels(labels, log_probs.shape[1])
    if len(labels) != len(log_probs):
        raise UserError(f"{len(log_probs)} rows of logits with {len(labels)} labels")
    return log_probs, labels


def correct(logits, labels):
    """Whether the likeliest class is the right one: [n, k], [n] -> bool [n]; its mean is accuracy.

    Of equal logits the first counts.
    """
    log_probs, labels = _log_probs_and_labels(logits, labels)
    return log_probs.argmax(axis=1) == labels


def negative_log_likelihood(logits, labels):
    """-log p(label | x) in nats: [n, k], [n] -> float64 [n]."""
    log_probs, labels = _log_probs_and_labels(logits, labels)
    return -log_probs[np.arange(len(labels)), labels]


def calibration_sums(logits, labels, bins=15):
    """What a reliability diagram is drawn from: float64 [3, bins], which adds up over batches.

    Rows: examples, the sum of their confidence (the largest probability), how many are correct.
    Bin b of confidence is (b / bins, (b + 1) / bins].
    """
    if bins < 1:
        raise UserError(f"{bins} bins of confidence, 1 is the least")
    log_probs, labels = _log_probs_and_labels(logits, labels)
    confidence = np.exp(log_probs.max(axis=1))
    right = log_probs.argmax(axis=1) == labels
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    weights = (np.ones(len(labels)), confidence, right)
    return np.stack([np.bincount(bin_of, weights=w, minlength=bins) for w in weights])


def expected_calibration_error(sums):
    """sum_b n_b / n |accuracy_b - confidence_b| in [0, 1] (Guo et al. 2017, eq. 3: 15 bins)."""
    examples, confidence, right = sums
    if examples.sum() == 0:
        raise UserError("no examples, so no calibration error")
    return float(np.abs(right - confidence).sum() / examples.sum())


def confusion_matrix(labels, predictions, num_classes):
    """Counts int64 [true class, predicted class], from indices [n]; adds up over batches."""
    labels = as_labels(labels, num_classes)
    predictions = as_labels(predictions, num_classes, "predictions")
    if len(labels) != len(predictions):
        raise UserError(f"{len(labels)} labels with {len(predictions)} predictions")
    pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)
