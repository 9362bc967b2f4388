"""How good the predictions of a classifier are, and how honest."""

import numpy as np


def accuracy(log_probs, labels):
    """Share of examples whose most probable class is the right one; [N, K], int [N]."""
    return np.mean(np.argmax(log_probs, axis=1) == labels)


def nll_nats(log_probs, labels):
    """Negative log-likelihood of the labels in nats, averaged; log_probs [N, K], labels int [N]."""
    return -np.mean(log_probs[np.arange(len(labels)), labels], dtype=np.float64)


def calibration_error(log_probs, labels, bins=15):
    """Expected calibration error (Guo et al. 2017, eq. 3).

    The confidences, each the largest probability of an example, are sorted into `bins` equal parts
    of (0, 1]; the result is the mean over examples of |accuracy - mean confidence| of their bin.

    Args:
      log_probs: [N, K].
      labels: int [N].
    """
    confidence = np.exp(np.max(log_probs, axis=1).astype(np.float64))
    correct = np.argmax(log_probs, axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return np.abs(gaps).sum() / len(labels)


def confusion_matrix(labels, predictions, num_classes):
    """int [K, K]: how many examples of class i were taken for class j."""
    pairs = np.asarray(labels) * num_classes + np.asarray(predictions)
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
