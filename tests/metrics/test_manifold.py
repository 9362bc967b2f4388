import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import arrays
from genjax.metrics.manifold import density_coverage, precision_recall


def distance(a, b):
    return np.sqrt(((a - b) ** 2).sum())


def radius(points, i, k):
    others = [distance(points[i], p) for j, p in enumerate(points) if j != i]
    return sorted(others)[k - 1]


def naive_precision(real, generated, k):
    radii = [radius(real, i, k) for i in range(len(real))]
    inside = [any(distance(g, r) <= rad for r, rad in zip(real, radii)) for g in generated]
    return np.mean(inside)


def naive_density_coverage(real, generated, k):
    radii = [radius(real, i, k) for i in range(len(real))]
    balls = [[distance(g, r) < rad for g in generated] for r, rad in zip(real, radii)]
    return np.sum(balls) / (k * len(generated)), np.mean([any(b) for b in balls])


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block_elements", [2**23, 100])
def test_all_four_are_those_of_loops(rng, monkeypatch, k, block_elements):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", block_elements)
    real, generated = rng.normal(size=(40, 3)), rng.normal(1.5, 1.3, (35, 3))
    precision, recall = precision_recall(real, generated, k)
    assert precision == naive_precision(real, generated, k)
    assert recall == naive_precision(generated, real, k)
    assert 0 < precision < 1 and 0 < recall < 1
    np.testing.assert_allclose(
        density_coverage(real, generated, k), naive_density_coverage(real, generated, k), 1e-12
    )
    shuffled = precision_recall(rng.permutation(real), rng.permutation(generated), k)
    assert shuffled == (precision, recall)


def test_the_edge_of_a_ball_counts_for_precision_and_recall_alone():
    real, generated = np.array([[0.0], [1]]), np.array([[-1.0], [-2]])
    assert precision_recall(real, generated, k=1) == (0.5, 0.5)
    assert density_coverage(real, generated, k=1) == (0, 0)


def test_equal_sets_have_all_and_distant_ones_nothing(rng):
    x = rng.normal(size=(60, 8))
    assert precision_recall(x, x.copy()) == (1, 1)
    density, coverage = density_coverage(x, x.copy())
    assert coverage == 1
    np.testing.assert_allclose(density, 1, atol=0.02)  # the k-th neighbour lies on the edge
    assert precision_recall(x, x + 100) == (0, 0)
    assert density_coverage(x, x + 100) == (0, 0)


def test_precision_and_recall_tell_the_two_failures_apart(rng):
    modes = np.array([[0.0, 0], [50, 0]])
    real = np.concatenate([m + rng.normal(size=(50, 2)) for m in modes])
    half = modes[0] + 0.5 * rng.normal(size=(100, 2))
    precision, recall = precision_recall(real, half)
    assert precision > 0.9 and recall < 0.5
    assert density_coverage(real, half)[1] < 0.5


def test_a_collapsed_generator_has_a_manifold_of_points(rng):
    real = rng.normal(size=(50, 6))
    collapsed = np.repeat(real[:1], 20, axis=0)
    assert precision_recall(real, collapsed) == (1, 1 / 50)


def test_density_and_coverage_of_one_more_real_sample(rng):
    real, more = rng.normal(size=(2, 1000, 4))
    density, coverage = density_coverage(real, more, k=5)
    assert abs(density - 1) < 0.1 and abs(coverage - (1 - 2**-5)) < 0.03


def test_bad_input_is_told(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(UserError, match="generated features: 3 rows are too few, at least 4"):
        precision_recall(x, x[:3])
    with pytest.raises(UserError, match="real features: 5 rows are too few, at least 6"):
        density_coverage(x[:5], x)
    with pytest.raises(UserError, match="k=0"):
        precision_recall(x, x, k=0)
    with pytest.raises(UserError, match="different spaces"):
        precision_recall(x, x[:, :2])
