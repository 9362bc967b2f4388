import numpy as np
import pytest
from scipy import linalg

from genjax.errors import UserError
from genjax.metrics.frechet import Moments, frechet_distance


def gaussian(rng, n, d, shift=0.0):
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix + shift


def in_batches(x, num):
    moments = Moments.zero(x.shape[1])
    for batch in np.array_split(x, num):
        moments = moments.update(batch)
    return moments


def assert_same(a, b, rtol):
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol)
    np.testing.assert_allclose(a.cov, b.cov, rtol=rtol, atol=rtol * np.abs(b.cov).max())


@pytest.mark.parametrize("num", [1, 7, 100])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_moments_are_numpys_in_any_batches_and_far_from_zero(rng, num, shift):
    x = gaussian(rng, 301, 20, shift)
    moments = in_batches(x, num)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(x.T), rtol=1e-8, atol=1e-9)


def test_moments_do_not_depend_on_order_or_on_who_merges(rng):
    x = gaussian(rng, 90, 8, 3.0)
    whole = Moments.of(x)
    assert_same(Moments.of(x[rng.permutation(90)]), whole, 1e-12)
    left, right = Moments.of(x[:40]), Moments.of(x[40:])
    assert_same(left.merge(right), whole, 1e-12)
    assert_same(right.merge(left), whole, 1e-12)
    assert left.count == 40  # the parts are as they were
    assert Moments.zero(8).merge(Moments.zero(8)).count == 0


def test_moments_of_float32_are_summed_in_float64(rng):
    x = gaussian(rng, 5000, 4, 1000.0).astype(np.float32)
    expected = np.cov(x.T.astype(np.float64))
    np.testing.assert_allclose(in_batches(x, 7).cov, expected, rtol=1e-9, atol=1e-8)


def test_distance_is_the_closed_form_of_two_given_gaussians(rng):
    # Covariances that commute: sum over axes of (m1 - m2)^2 + (s1 - s2)^2, in any rotation.
    d, n = 6, 1000
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scales, means = rng.uniform(0.1, 3, (2, d)), rng.normal(size=(2, d))
    moments = [
        Moments(n, rotation @ m, (n - 1) * (rotation * s**2) @ rotation.T)
        for m, s in zip(means, scales)
    ]
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((scales[0] - scales[1]) ** 2)
    np.testing.assert_allclose(frechet_distance(*moments), expected, rtol=1e-10)


def test_distance_of_samples_nears_the_closed_form(rng):
    x, y = rng.normal(0, 1, (40_000, 4)), rng.normal(0.5, 2, (40_000, 4))
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    assert abs(distance - 4 * (0.25 + 1)) < 0.1


@pytest.mark.parametrize("m, n, d", [(200, 300, 20), (15, 300, 20), (12, 9, 20)])
def test_distance_is_that_of_scipys_matrix_root(rng, m, n, d):
    x, y = gaussian(rng, m, d), gaussian(rng, n, d, 0.3)
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    # The root of C1^1/2 C2 C1^1/2, which sqrtm can take of singular matrices too.
    root = linalg.sqrtm(cov_x + 1e-14 * np.eye(d)).real
    middle = linalg.sqrtm(root @ cov_y @ root + 1e-14 * np.eye(d)).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cov_x + cov_y - 2 * middle)
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    np.testing.assert_allclose(distance, expected, rtol=1e-5)
    np.testing.assert_allclose(distance, frechet_distance(Moments.of(y), Moments.of(x)), rtol=1e-6)


@pytest.mark.parametrize("n", [10, 400])
def test_distance_to_itself_is_zero_whatever_the_rank(rng, n):
    moments = Moments.of(gaussian(rng, n, 50))
    assert 0 <= frechet_distance(moments, moments) < 1e-7 * np.trace(moments.cov)


def test_distance_does_not_change_with_a_common_rotation_and_shift(rng):
    x, y = gaussian(rng, 100, 10), gaussian(rng, 120, 10)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    before = frechet_distance(Moments.of(x), Moments.of(y))
    after = frechet_distance(Moments.of(x @ rotation + 5), Moments.of(y @ rotation + 5))
    np.testing.assert_allclose(after, before, rtol=1e-8)


def test_bad_input_is_told():
    one = Moments.of(np.ones((1, 3)))
    with pytest.raises(UserError, match="needs 2 feature vectors, there are 1"):
        frechet_distance(one, one)
    with pytest.raises(UserError, match="3 and of 4 features"):
        frechet_distance(one, Moments.zero(4))
    with pytest.raises(UserError, match="3 and of 4 features cannot be merged"):
        one.update(np.ones((2, 4)))
    with pytest.raises(UserError, match="NaN"):
        one.update(np.full((2, 3), np.nan))
