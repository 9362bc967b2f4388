"""Precision, recall, density, coverage, modes, neighbours, scores: against naive loops."""

import numpy as np
import pytest

from genjax.metrics.inception_score import InceptionScore
from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_pixels
from genjax.metrics.manifold import density_coverage, precision_recall
from genjax.metrics.modes import modes_and_kl
from genjax.metrics.neighbours import copying_rate, nearest

RNG = np.random.default_rng(0)


def everything(real, generated):
    return {**precision_recall(real, generated), **density_coverage(real, generated)}


def test_identical_and_disjoint_sets():
    x = RNG.normal(size=(60, 8))
    same = everything(x, x)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    # Nobody's own ball is missed, and on average k - 1 others' are met (the k-th is on the edge).
    assert same["density"] == pytest.approx(1.0)
    assert set(everything(x, x + 100).values()) == {0.0}


def test_against_loops_over_all_pairs(monkeypatch):
    monkeypatch.setattr("genjax.metrics.manifold.BLOCK", 16)
    real, generated = RNG.normal(size=(50, 4)), RNG.normal(size=(70, 4)) * 0.7 + 0.5
    far = lambda a, b: np.sqrt(np.sum((a - b) ** 2))
    ball = lambda z, i, k: sorted(far(z[i], z[j]) for j in range(len(z)) if j != i)[k - 1]
    real3, gen3 = ([ball(z, i, 3) for i in range(len(z))] for z in (real, generated))
    real5 = [ball(real, i, 5) for i in range(len(real))]
    meets = lambda x, z, edges: [far(x, a) <= e for a, e in zip(z, edges)]
    expected = {
        "precision": np.mean([any(meets(g, real, real3)) for g in generated]),
        "recall": np.mean([any(meets(r, generated, gen3)) for r in real]),
        "density": np.mean([sum(meets(g, real, real5)) / 5 for g in generated]),
        "coverage": np.mean([any(far(r, g) < e for g in generated) for r, e in zip(real, real5)]),
    }
    got = everything(real, generated)
    assert got == pytest.approx(expected) and 0 < got["recall"] < got["precision"] < 1


def test_a_model_that_drops_half_of_the_data():
    clusters = RNG.normal(size=(400, 2)) * 0.1 + np.array([[0, 0], [9, 9]])[np.arange(400) % 2]
    got = everything(clusters, RNG.normal(size=(400, 2)) * 0.1)
    assert got["precision"] > 0.9 and 0.4 < got["recall"] < 0.5 and 0.4 < got["coverage"] < 0.52


def test_modes():
    assert modes_and_kl(np.arange(1000), 1000) == pytest.approx({"modes": 1000, "kl_nats": 0})
    collapsed = modes_and_kl(np.full(50, 3), 1000)
    assert collapsed == pytest.approx({"modes": 1, "kl_nats": np.log(1000)})
    labels = [0, 0, 0, 1]
    by_hand = 0.75 * np.log(0.75 * 4) + 0.25 * np.log(0.25 * 4)
    assert modes_and_kl(labels, 4) == pytest.approx({"modes": 2, "kl_nats": by_hand})


def test_neighbours_and_copies(monkeypatch):
    monkeypatch.setattr("genjax.metrics.neighbours.BLOCK", 7)
    training = RNG.normal(size=(200, 12)) + 50
    fresh = RNG.normal(size=(100, 12)) + 50
    queries = np.concatenate([training[:20] + 1e-5, fresh])
    indices, apart = nearest(queries, training, 3)
    naive = np.sqrt(((queries[:, None] - training) ** 2).sum(-1))
    np.testing.assert_array_equal(indices, np.argsort(naive, axis=1)[:, :3])
    np.testing.assert_allclose(apart, np.sort(naive, axis=1)[:, :3], rtol=1e-9)
    assert copying_rate(apart) == pytest.approx(20 / 120)
    assert copying_rate(nearest(fresh, training)[1]) == 0.0


def score(log_probs, cuts, **options):
    found = InceptionScore(len(log_probs), **options)
    for part in np.split(log_probs, cuts):
        found.update(part)
    return found.result()


def test_inception_score_at_its_ends_and_by_hand():
    sure = np.log(np.maximum(np.eye(10)[np.arange(1000) % 10], 1e-300))
    assert score(sure, []) == pytest.approx((10.0, 0.0))  # sure of each, and of all ten
    same = np.log(np.tile(RNG.dirichlet(np.ones(10)), (1000, 1)))
    assert score(same, []) == pytest.approx((1.0, 0.0))
    p = RNG.dirichlet(np.ones(5), 103)
    split = np.arange(103) * 10 // 103
    kl = lambda q: np.mean(np.sum(q * np.log(q / q.mean(0)), axis=1))
    scores = [np.exp(kl(p[split == s])) for s in range(10)]
    for cuts in ([], [1, 40, 41, 90]):
        assert score(np.log(p), cuts) == pytest.approx((np.mean(scores), np.std(scores)))


def test_a_uniform_model_needs_eight_bits_a_dimension():
    dims = 28 * 28
    assert bits_per_dim_of_pixels(dims * np.log(256), dims) == pytest.approx(8.0)
    assert bits_per_dim_of_density(0.0, dims) == pytest.approx(8.0)  # p = 1 on [0, 1)
    assert bits_per_dim_of_density(dims * np.log(2), dims, 2 / 256) == pytest.approx(8.0)
