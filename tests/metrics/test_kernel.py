import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import arrays
from genjax.metrics.kernel import kernel_distance, kid


def kernel(a, b):
    return (float(a @ b) / len(a) + 1) ** 3


def naive(x, y):
    """MMD^2 pair by pair."""
    xx = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    xy = [kernel(a, b) for a in x for b in y]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)


@pytest.mark.parametrize("m, n", [(30, 30), (4, 21)])
def test_distance_is_that_of_a_loop_over_pairs(rng, m, n):
    x, y = rng.normal(size=(m, 6)), rng.normal(0.5, 1.5, (n, 6))
    np.testing.assert_allclose(kernel_distance(x, y)[0], naive(x, y), rtol=1e-10)


def test_a_set_and_itself_are_two_sets(rng):
    x = rng.normal(size=(20, 6))
    distance, error = kernel_distance(x, x)
    assert (distance, error) == pytest.approx(kernel_distance(x, x.copy()), rel=1e-9)
    np.testing.assert_allclose(distance, naive(x, x), rtol=1e-10)  # below 0: it is unbiased
    assert distance < 0


def test_one_subset_of_everything_is_the_whole_set(rng):
    x, y = rng.normal(size=(25, 6)), rng.normal(0.5, 1.5, (25, 6))
    mean, std = kid(x, y, rng=rng, subsets=1, subset_size=25)
    np.testing.assert_allclose(mean, kernel_distance(x, y)[0], rtol=1e-10)
    assert std == 0


def test_blocks_and_order_make_no_difference(rng, monkeypatch):
    x, y = rng.normal(size=(50, 8)), rng.normal(0.2, 1, (40, 8))
    whole = kernel_distance(x, y)
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 200)
    np.testing.assert_allclose(kernel_distance(x, y), whole, rtol=1e-9)
    shuffled = kernel_distance(x[rng.permutation(50)], y[rng.permutation(40)])
    np.testing.assert_allclose(shuffled, whole, rtol=1e-9)
    np.testing.assert_allclose(kernel_distance(y, x), whole, rtol=1e-9)


def repeated(draw, repeats):
    """Distances and standard errors of independent samples."""
    results = [kernel_distance(*draw(np.random.default_rng(i))) for i in range(repeats)]
    return np.array(results).T


def test_two_halves_are_at_zero_within_the_standard_error():
    features = lambda rng: np.maximum(rng.normal(size=(200, 64)), 0)
    distances, errors = repeated(lambda rng: np.split(features(rng), 2), 300)
    assert abs(distances.mean()) < 3 * distances.std() / np.sqrt(300)
    assert np.mean(np.abs(distances) < 2 * errors) > 0.93
    assert 0.9 < errors.mean() / distances.std() < 1.35


@pytest.mark.parametrize("m, n", [(100, 100), (60, 200)])
def test_standard_error_is_the_spread_of_a_distance_that_is_not_zero(m, n):
    draw = lambda rng: (rng.normal(size=(m, 32)), rng.normal(0.3, 1.1, (n, 32)))
    distances, errors = repeated(draw, 300)
    assert distances.mean() > 3 * distances.std()
    assert 0.85 < np.sqrt(np.mean(errors**2)) / distances.std() < 1.15
    within = np.abs(distances - distances.mean()) < 2 * errors
    assert 0.9 < within.mean() < 0.99


def test_subsets_are_drawn_from_the_generator_given(rng):
    x, y = rng.normal(size=(60, 5)), rng.normal(1, 1, (70, 5))
    draw = lambda seed: kid(x, y, rng=np.random.default_rng(seed), subsets=40, subset_size=30)
    assert draw(1) == draw(1) != draw(2)
    mean, std = draw(1)
    assert abs(mean - kernel_distance(x, y)[0]) < std  # of 40 subsets, so a sixth of one's std


def test_bad_input_is_told(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(UserError, match="the second features: 3 rows are too few, at least 4"):
        kernel_distance(x, x[:3])
    with pytest.raises(UserError, match="different spaces: 3 and 2"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(UserError, match="the first features.*NaN"):
        kernel_distance(np.where(x > 0, np.nan, x), x)
    with pytest.raises(UserError, match="100 subsets of 1000 cannot be drawn from 10 and 10"):
        kid(x, x, rng=rng)
