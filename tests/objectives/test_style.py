"""Style losses in float64, values and gradients, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.objectives import style
from genjax.objectives.style import STYLE_LOSSES


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    make = lambda h, w: rng.normal(size=(h, w, 4)) @ rng.normal(size=(4, 4)) + rng.normal(size=4)
    return make(6, 5), make(7, 8)


def gram(f):
    f = f.reshape(-1, f.shape[-1])
    return f.T @ f / len(f)


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def wasserstein(x, y):
    x, y = (f.reshape(-1, f.shape[-1]) for f in (x, y))
    c, d = (np.cov(f.T, bias=True) for f in (x, y))
    half = root(c)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c + d - 2 * root(half @ d @ half))


def mean_std(x, y):
    x, y = (f.reshape(-1, f.shape[-1]) for f in (x, y))
    return ((x.mean(0) - y.mean(0)) ** 2).mean() + ((x.std(0) - y.std(0)) ** 2).mean()


CLOSED = {
    "gram": lambda x, y: ((gram(x) - gram(y)) ** 2).mean(),
    "mean_std": mean_std,
    "wasserstein": lambda x, y: wasserstein(x, y) / x.shape[-1],
}


def loss_of(name):
    loss = STYLE_LOSSES[name]
    return lambda x, y: loss.distance(loss.sums(x), loss.sums(y))


@pytest.mark.parametrize("name", CLOSED)
def test_values(name, features):
    x, y = features
    np.testing.assert_allclose(loss_of(name)(x, y), CLOSED[name](x, y), rtol=1e-9)
    assert abs(loss_of(name)(x, x)) < 1e-9 * CLOSED[name](x, y)
    loss = STYLE_LOSSES[name]
    prepared = loss.distance(loss.sums(x), loss.prepare(loss.sums(y)))
    np.testing.assert_allclose(prepared, loss_of(name)(x, y), rtol=1e-9)


@pytest.mark.parametrize("name", CLOSED)
def test_gradients(name, features):
    """Against differences of the closed form."""
    x, y = features
    gradient = jax.grad(loss_of(name))(jnp.asarray(x), y)
    rng = np.random.default_rng(1)
    for _ in range(3):
        change = rng.normal(size=x.shape) * 1e-5
        expected = (CLOSED[name](x + change, y) - CLOSED[name](x - change, y)) / 2
        np.testing.assert_allclose(np.sum(gradient * change), expected, rtol=1e-6)


def test_gram_gradient_in_closed_form(features):
    """dL/dF = 4 / (n C^2) F (G - G')."""
    x, y = features
    flat = x.reshape(-1, 4)
    expected = 4 / (len(flat) * 16) * flat @ (gram(x) - gram(y))
    gradient = jax.grad(loss_of("gram"))(jnp.asarray(x), y).reshape(-1, 4)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_wasserstein_of_one_dimension_and_of_diagonals():
    mean, mean_t = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    std, std_t = np.array([2.0, 0.3]), np.array([1.5, 0.0])
    result = style.wasserstein2(mean, np.diag(std**2), mean_t, np.diag(std_t**2))
    expected = ((mean - mean_t) ** 2).sum() + ((std - std_t) ** 2).sum()
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    # Gradient by the covariance: 1 - std_t / std on the diagonal.
    gradient = jax.grad(style.wasserstein2, 1)(
        mean, jnp.diag(jnp.asarray(std**2)), mean_t, np.diag(std_t**2)
    )
    np.testing.assert_allclose(np.diag(gradient), 1 - std_t / std, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLOSED)
def test_few_positions_and_dead_channels_have_finite_gradients(name, dtype):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(2, 2, 16)), 0).astype(dtype)
    y = np.maximum(rng.normal(size=(2, 3, 16)), 0).astype(dtype)
    x[..., 3] = 0
    y[..., :2] = 0
    value, gradient = jax.value_and_grad(loss_of(name))(jnp.asarray(x), jnp.asarray(y))
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    assert np.abs(gradient).max() < 1e3


@pytest.mark.parametrize("name", CLOSED)
def test_sums_add_up_and_weights_are_multiplicities(name, features):
    x, _ = features
    loss = STYLE_LOSSES[name]
    halves = jax.tree.map(jnp.add, loss.sums(x[:2]), loss.sums(x[2:]))
    full = loss.sums(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), halves, full)
    weights = np.array([0, 1, 2, 1, 0])[None].repeat(6, 0)
    repeated = np.concatenate([x[:, 1:2], x[:, 2:3], x[:, 2:3], x[:, 3:4]], 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
        loss.sums(x, weights),
        loss.sums(repeated),
    )


def test_total_variation():
    image = np.random.default_rng(0).normal(size=(5, 4, 3))
    expected = np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum()
    np.testing.assert_allclose(style.total_variation(image), expected, rtol=1e-12)
    step = np.zeros((4, 6, 3))
    step[:, 3:] = 1
    assert style.total_variation(jnp.asarray(step)) == 4 * 3
    gradient = jax.grad(lambda x: style.total_variation(x))(jnp.asarray(image))
    signs = np.zeros_like(image)
    for axis in (0, 1):
        s = np.sign(np.diff(image, axis=axis))
        signs += np.diff(s, axis=axis, prepend=0, append=0) * -1
    np.testing.assert_allclose(gradient, signs, rtol=1e-12)


def test_self_similarity_and_relaxed_emd():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 3))
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
    dx, dy = 1 - unit(x) @ unit(x).T, 1 - unit(y) @ unit(y).T
    expected = 7 * np.abs(dx / dx.sum(0) - dy / dy.sum(0)).mean()
    np.testing.assert_allclose(style.self_similarity_distance(x, y), expected, rtol=1e-6)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert style.self_similarity_distance(jnp.asarray(x), x @ rotation) < 1e-7
    d = 1 - unit(x) @ unit(y[:4]).T
    expected = max(d.min(1).mean(), d.min(0).mean())
    np.testing.assert_allclose(style.relaxed_emd(x, y[:4]), expected, rtol=1e-6)
    assert style.relaxed_emd(jnp.asarray(x), x[::-1]) < 1e-7


def test_positions_on_a_grid():
    features = np.arange(40 * 30 * 2.0).reshape(40, 30, 2)
    assert style.some_positions(features, 1200).shape == (1200, 2)
    some = style.some_positions(features, 100)
    assert 50 < len(some) <= 100
    np.testing.assert_array_equal(some[0], features[0, 0])
