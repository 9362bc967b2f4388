import numpy as np
import pytest

from genjax.metrics import classification as C


def log_probs(*rows):
    return np.log(np.asarray(rows))


def test_accuracy_likelihood_and_confusion():
    predictions = log_probs([0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1])
    labels = np.array([0, 2, 1])
    assert C.accuracy(predictions, labels) == pytest.approx(2 / 3)
    assert C.nll_nats(predictions, labels) == pytest.approx(-np.log(0.7 * 0.6 * 0.4) / 3)
    matrix = C.confusion_matrix(labels, np.argmax(predictions, 1), 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_calibration_error_of_one_bin_by_hand():
    """Four examples sure to 0.9, three of them right: |0.75 - 0.9|."""
    predictions = log_probs(*[[0.9, 0.1]] * 4)
    assert C.calibration_error(predictions, np.array([0, 0, 0, 1])) == pytest.approx(0.15)
    assert C.calibration_error(log_probs([1.0, 1e-30]), np.array([0])) == pytest.approx(0)


def test_an_honest_classifier_is_calibrated_and_a_boastful_one_is_not():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 100_000)
    labels = (rng.random(len(p))[:, None] > np.cumsum(p, 1)).sum(1)
    assert C.calibration_error(np.log(p), labels) < 0.01
    boastful = p**3 / (p**3).sum(1, keepdims=True)
    naive = 0.0  # bin by bin, with loops
    confidence, right = boastful.max(1), boastful.argmax(1) == labels
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            naive += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert C.calibration_error(np.log(boastful), labels) == pytest.approx(naive, rel=1e-9)
    assert naive > 0.1
