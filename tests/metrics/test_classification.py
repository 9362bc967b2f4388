import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics

from genjax.errors import UserError
from genjax.metrics.classification import (
    calibration_sums,
    confusion_matrix,
    correct,
    expected_calibration_error,
    negative_log_likelihood,
)

LOGITS = np.random.default_rng(0).normal(0, 2, (200, 7))
LABELS = np.random.default_rng(1).integers(0, 7, 200)


def test_accuracy_and_confusions_are_scikit_learns():
    predictions = LOGITS.argmax(axis=1)
    accuracy = metrics.accuracy_score(LABELS, predictions)
    assert correct(LOGITS, LABELS).mean() == accuracy
    confusions = confusion_matrix(LABELS[:50], predictions[:50], 7)
    confusions += confusion_matrix(LABELS[50:], predictions[50:], 7)
    np.testing.assert_array_equal(confusions, metrics.confusion_matrix(LABELS, predictions))
    assert confusion_matrix([2], [0], 3)[2, 0] == 1  # rows are the true classes


def test_negative_log_likelihood_is_scipys_and_does_not_overflow():
    expected = -log_softmax(LOGITS, axis=1)[np.arange(200), LABELS]
    np.testing.assert_allclose(negative_log_likelihood(LOGITS, LABELS), expected, rtol=1e-12)
    np.testing.assert_array_equal(negative_log_likelihood([[1e4, 0]] * 2, [0, 1]), [0, 1e4])
    uniform = negative_log_likelihood(np.zeros((3, 10)), [0, 5, 9])
    np.testing.assert_allclose(uniform, np.log(10))


def logits_of(confidence):
    """Two classes, the first with this probability."""
    confidence = np.asarray(confidence)
    return np.log(np.stack([confidence, 1 - confidence], axis=1))


def test_calibration_error_in_closed_form():
    # 10 examples of confidence 0.9, 6 right; 30 of 0.7, 24 right.
    logits = logits_of([0.9] * 10 + [0.7] * 30)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 24 + [1] * 6)
    expected = (10 * abs(0.6 - 0.9) + 30 * abs(0.8 - 0.7)) / 40
    sums = calibration_sums(logits, labels)
    assert expected_calibration_error(sums) == pytest.approx(expected)
    # Bins of their own: 0.9 in (13/15, 14/15], 0.7 in (10/15, 11/15].
    np.testing.assert_array_equal(np.flatnonzero(sums[0]), [10, 13])
    # In one bin the errors would cancel.
    one = expected_calibration_error(calibration_sums(logits, labels, bins=1))
    assert one == pytest.approx(abs(30 / 40 - (0.9 * 10 + 0.7 * 30) / 40))


def test_calibration_error_is_that_of_a_loop_in_any_batches():
    confidence = softmax(LOGITS, axis=1).max(axis=1)
    right = LOGITS.argmax(axis=1) == LABELS
    expected = 0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    parts = np.array_split(np.arange(200), 7)
    sums = sum(calibration_sums(LOGITS[i], LABELS[i]) for i in parts)
    np.testing.assert_allclose(expected_calibration_error(sums), expected, rtol=1e-10)


def test_the_edges_of_the_bins():
    sums = calibration_sums(logits_of([0.5, 0.75, 1 - 1e-12]), [0, 0, 0], bins=4)
    np.testing.assert_array_equal(sums[0], [0, 1, 1, 1])
    certain = calibration_sums([[1e4, 0]], [0])
    assert certain[0, -1] == 1 and expected_calibration_error(certain) == 0


def test_bad_input_is_told():
    with pytest.raises(UserError, match="200 rows of logits with 3 labels"):
        correct(LOGITS, LABELS[:3])
    with pytest.raises(UserError, match="labels: 7 at 0 is not in 0 ... 6"):
        negative_log_likelihood(LOGITS[:1], [7])
    with pytest.raises(UserError, match="logits: .*NaN"):
        calibration_sums(LOGITS * np.nan, LABELS)
    with pytest.raises(UserError, match="0 bins"):
        calibration_sums(LOGITS, LABELS, bins=0)
    with pytest.raises(UserError, match="no examples"):
        expected_calibration_error(np.zeros((3, 15)))
    with pytest.raises(UserError, match="2 labels with 1 predictions"):
        confusion_matrix([0, 1], [0], 2)
