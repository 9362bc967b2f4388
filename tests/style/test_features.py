"""AdaIN and WCT: the moments of their results, and differences from naive NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.style.features import EPS, adain, mixture, whiten_and_color


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mix = lambda: rng.normal(size=(5, 5))
    content = rng.normal(size=(2, 12, 11, 5)) @ mix() + rng.normal(size=5)
    return content, rng.normal(size=(2, 9, 14, 5)) @ mix() + rng.normal(size=5)


def test_adain(features):
    content, style = features
    out = np.asarray(adain(jnp.asarray(content), style))
    for c, s, o in zip(content, style, out):
        flat = lambda x: x.reshape(-1, 5)
        c, s, o = map(flat, (c, s, o))
        std = lambda x: np.sqrt(x.var(0) + EPS)
        np.testing.assert_allclose(o, (c - c.mean(0)) / std(c) * std(s) + s.mean(0), atol=1e-4)
        np.testing.assert_allclose(o.mean(0), s.mean(0), atol=1e-4)
        np.testing.assert_allclose(o.std(0), s.std(0), rtol=1e-4)


def test_whitening_and_coloring_gives_mean_and_covariance(features):
    with jax.enable_x64(True):
        content, style = (x[0] for x in features)
        out = np.asarray(whiten_and_color(jnp.asarray(content), jnp.asarray(style))).reshape(-1, 5)
        s = style.reshape(-1, 5)
        np.testing.assert_allclose(out.mean(0), s.mean(0), atol=1e-10)
        np.testing.assert_allclose(
            np.cov(out.T), np.cov(s.T, bias=True) * len(out) / (len(out) - 1)
        )
        same = whiten_and_color(jnp.asarray(content), jnp.asarray(content))
        np.testing.assert_allclose(same, content, atol=1e-9)


def test_dead_channels_stay_finite():
    rng = np.random.default_rng(0)
    content = np.maximum(rng.normal(size=(3, 3, 16)), 0).astype(np.float32)
    content[..., 4] = 0
    out = whiten_and_color(jnp.asarray(content), jnp.asarray(content[::-1] * 2))
    assert np.isfinite(out).all() and np.abs(out).max() < 100


def test_mixture():
    c, a, b = (np.full((1, 2, 2, 1), v) for v in (1.0, 3.0, 7.0))
    assert mixture(c, [a, b], 0.0, (0.5, 0.5)).mean() == 1
    assert mixture(c, [a, b], 1.0, (0.25, 0.75)).mean() == 6
    assert mixture(c, [a, b], 0.5, (0.5, 0.5)).mean() == 3
