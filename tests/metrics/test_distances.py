"""Fréchet and kernel distances: known answers, independent ones, and how batches are cut."""

import numpy as np
import pytest
import scipy.linalg

from genjax.errors import UserError
from genjax.metrics.frechet import Moments, frechet_distance
from genjax.metrics.kernel import kernel, kernel_distance

RNG = np.random.default_rng(0)


def features(count, dims=16, shift=0.0):
    return np.maximum(RNG.normal(size=(count, dims)), 0) + shift


def gaussian(mean, covariance):
    return Moments(2, np.asarray(mean, float), np.asarray(covariance, float))


def test_frechet_of_a_set_to_itself_is_zero():
    x = Moments.of(features(500))
    assert abs(frechet_distance(x, x)) < 1e-12
    few = Moments.of(features(10, 40))  # fewer features than dimensions
    assert abs(frechet_distance(few, few)) < 1e-6


def test_frechet_of_two_gaussians_in_closed_form():
    """Commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2 of the standard deviations."""
    rotation = scipy.linalg.qr(RNG.normal(size=(5, 5)))[0]
    s1, s2 = np.array([1, 2, 3, 0.5, 0]), np.array([2, 2, 1, 0.1, 4])
    m1, m2 = RNG.normal(size=(2, 5))
    a = gaussian(m1, rotation * s1**2 @ rotation.T)
    b = gaussian(m2, rotation * s2**2 @ rotation.T)
    expected = np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_against_scipys_matrix_root():
    x, y = features(300), features(400, shift=0.1) * 1.3
    mean_apart = np.sum((x.mean(0) - y.mean(0)) ** 2)
    c1, c2 = np.cov(x.T), np.cov(y.T)
    expected = mean_apart + np.trace(c1 + c2 - 2 * np.real(scipy.linalg.sqrtm(c1 @ c2)))
    got = frechet_distance(Moments.of(x), Moments.of(y))
    assert got == pytest.approx(expected, rel=1e-9)


def test_moments_do_not_depend_on_the_batches():
    x = features(1000) + 1e4  # far from 0: sums of squares would lose eight digits
    whole = Moments.of(x)
    parts = [Moments.of(part) for part in np.split(x, [3, 100, 101, 500, 730, 999])]
    together = sum(parts[1:], parts[0])
    assert together.count == 1000
    np.testing.assert_allclose(together.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(together.covariance, np.cov(x.T), rtol=1e-8, atol=1e-8)


def test_kernel_distance_is_the_mean_over_all_pairs():
    x, y = features(7), features(9, shift=0.2)
    k = lambda a, b: (a @ b / 16 + 1) ** 3
    within = lambda z: np.mean(
        [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
    )
    between = np.mean([k(a, b) for a in x for b in y])
    value, _ = kernel_distance(x, y)
    assert value == pytest.approx(within(x) + within(y) - 2 * between, rel=1e-12)


@pytest.mark.parametrize("n,m,shift", [(80, 80, 0.0), (80, 200, 0.0), (120, 80, 0.3)])
def test_the_standard_error_is_that_of_many_trials(n, m, shift):
    found = np.array([kernel_distance(features(n), features(m, shift=shift)) for _ in range(300)])
    values, errors = found.T
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    truth = 0.0 if shift == 0 else values.mean()
    inside = np.mean(np.abs(values - truth) < 2 * errors)
    assert inside > 0.87
    if shift == 0:
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(300)  # unbiased


def test_kernel_distance_in_blocks(monkeypatch):
    x, y = features(50), features(60, shift=0.1)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("genjax.metrics.kernel.BLOCK", 7)
    np.testing.assert_allclose(kernel_distance(x, y), whole, rtol=1e-10)
    assert kernel(x, y).shape == (50, 60)


def test_features_that_are_none_are_refused():
    good = features(20)
    bad = good.copy()
    bad[7, 2] = np.nan
    with pytest.raises(UserError, match="features of image 7 are not finite"):
        Moments.of(bad)
    with pytest.raises(UserError, match=r"not \[20, 4, 4\]"):
        Moments.of(good.reshape(20, 4, 4))
    with pytest.raises(UserError, match="2 features are too few: at least 3"):
        kernel_distance(good[:2], good)
    with pytest.raises(UserError, match="features of 16 and of 8 dimensions"):
        kernel_distance(good, good[:, :8])
