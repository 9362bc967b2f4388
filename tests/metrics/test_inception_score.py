import numpy as np
import pytest
from scipy.special import softmax

from genjax.errors import UserError
from genjax.metrics.inception_score import InceptionScore


def score(logits, splits, batches=1):
    state = InceptionScore.start(*logits.shape, splits=splits)
    for batch in np.array_split(logits, min(batches, len(logits))):
        state = state.update(batch)
    return state.score()


def published(logits, splits):
    """As the authors' code does it, on probabilities."""
    p, n, scores = softmax(logits, axis=1), len(logits), []
    for i in range(splits):
        part = p[i * n // splits : (i + 1) * n // splits]
        kl = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
        scores.append(np.exp(kl.sum(axis=1).mean()))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("n, splits", [(100, 10), (103, 10), (7, 3), (5, 1)])
@pytest.mark.parametrize("batches", [1, 7])
def test_score_is_the_published_one_in_any_batches(rng, n, splits, batches):
    logits = rng.normal(0, 3, (n, 12))
    np.testing.assert_allclose(score(logits, splits, batches), published(logits, splits), 1e-10)


def test_score_of_certain_and_even_classes_is_their_number():
    certain = np.tile(1e4 * np.eye(10), (20, 1))
    np.testing.assert_allclose(score(certain, 10), (10, 0), atol=1e-9)
    # A class that no image has, and nothing known at all.
    np.testing.assert_allclose(score(certain[:, :9][certain[:, 9] == 0], 1), (9, 0), atol=1e-9)
    np.testing.assert_allclose(score(np.eye(1, 10).repeat(50, 0) * 1e4, 5), (1, 0), atol=1e-9)
    np.testing.assert_allclose(score(np.ones((50, 10)), 5), (1, 0), atol=1e-9)


def test_logits_and_log_probabilities_are_one(rng):
    logits = rng.normal(size=(40, 5))
    np.testing.assert_allclose(score(np.log(softmax(logits, 1)), 4), score(logits, 4), 1e-12)


def test_bad_input_is_told():
    with pytest.raises(UserError, match="5 images cannot be cut into 10 splits"):
        InceptionScore.start(5, 3)
    state = InceptionScore.start(20, 3)
    with pytest.raises(UserError, match="expected 3 classes, got 4"):
        state.update(np.ones((2, 4)))
    with pytest.raises(UserError, match="expected 20 images, got 21"):
        state.update(np.ones((21, 3)))
    with pytest.raises(UserError, match="expected 20 images, got 8"):
        state.update(np.ones((8, 3))).score()
    with pytest.raises(UserError, match="logits: .*NaN"):
        state.update(np.full((2, 3), -np.inf))
