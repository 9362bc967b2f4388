"""Accuracy, likelihood and calibration of a classifier.

Metrics that are means over examples are returned per example; the others as sums over a batch,
which are added over batches.
"""

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, as_labels, log_softmax
from genjax.typing import Bool, Float, Int


def _log_probs_and_labels(
    logits: ArrayLike, labels: ArrayLike
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, " n"]]:
    log_probs = log_softmax(logits)
    labels = as_labels(labels, log_probs.shape[1])
    if len(labels) != len(log_probs):
        raise UserError(f"{len(log_probs)} rows of logits with {len(labels)} labels")
    return log_probs, labels


def correct(logits: ArrayLike, labels: ArrayLike) -> Bool[np.ndarray, " n"]:
    """Tells whether the likeliest class is the label; the mean is the accuracy.

    Among equal logits the first counts.

    Args:
      logits: [n, k].
      labels: [n], integers.
    """
    log_probs, labels = _log_probs_and_labels(logits, labels)
    return log_probs.argmax(axis=1) == labels


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> Float[np.ndarray, " n"]:
    """Computes -log p(label | x) in nats from logits [n, k] and labels [n]."""
    log_probs, labels = _log_probs_and_labels(logits, labels)
    return -log_probs[np.arange(len(labels)), labels]


def calibration_sums(
    logits: ArrayLike, labels: ArrayLike, bins: int = 15
) -> Float[np.ndarray, "3 bins"]:
    """Computes the sums of a reliability diagram, to be added over batches.

    Args:
      logits: [n, k].
      labels: [n], integers.
      bins: number of bins of confidence; bin b is (b / bins, (b + 1) / bins].

    Returns:
      For each bin the number of examples, the sum of their confidences (largest probabilities) and
      the number of correct ones.
    """
    if bins < 1:
        raise UserError(f"{bins} bins of confidence, at least 1 is needed")
    log_probs, labels = _log_probs_and_labels(logits, labels)
    confidence = np.exp(log_probs.max(axis=1))
    right = log_probs.argmax(axis=1) == labels
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    weights = (np.ones(len(labels)), confidence, right)
    return np.stack([np.bincount(bin_of, weights=w, minlength=bins) for w in weights])


def expected_calibration_error(sums: Float[np.ndarray, "3 bins"]) -> float:
    """Computes sum_b n_b / n |accuracy_b - confidence_b|, in [0, 1].

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, eq. 3, with 15 bins.

    Args:
      sums: of `calibration_sums`.
    """
    examples, confidence, right = sums
    if examples.sum() == 0:
        raise UserError("no examples, so no calibration error")
    return float(np.abs(right - confidence).sum() / examples.sum())


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int
) -> Int[np.ndarray, "true predicted"]:
    """Counts examples by true and predicted class, from indices [n]; to be added over batches."""
    labels = as_labels(labels, num_classes)
    predictions = as_labels(predictions, num_classes, "predictions")
    if len(labels) != len(predictions):
        raise UserError(f"{len(labels)} labels with {len(predictions)} predictions")
    pairs = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)
