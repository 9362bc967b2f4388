"""Penalties on critics whose gradients are known, spectral norms by NumPy's decomposition."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.objectives import penalties

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (5, 3, 4, 2))
A = jax.random.normal(jax.random.key(1), (24, 24))


def quadratic(x):
    """x^T A x, whose gradient is (A + A^T) x."""
    flat = x.reshape(len(x), -1)
    return jnp.einsum("bi,ij,bj->b", flat, A, flat)


def test_squared_gradient_norms_are_those_of_a_quadratic():
    logits, squares = jax.jit(lambda x: penalties.value_and_squared_gradient_norm(quadratic, x))(X)
    flat = np.asarray(X, np.float64).reshape(5, -1)
    a = np.asarray(A, np.float64)
    np.testing.assert_allclose(logits, np.einsum("bi,ij,bj->b", flat, a, flat), rtol=1e-4)
    np.testing.assert_allclose(squares, np.sum((flat @ (a + a.T)) ** 2, axis=1), rtol=1e-4)


def test_its_own_derivative_is_of_second_order():
    # d/dx |(A + A^T) x|^2 = 2 (A + A^T)^2 x
    squares = lambda x: jnp.sum(penalties.value_and_squared_gradient_norm(quadratic, x)[1])
    a = np.asarray(A, np.float64)
    wanted = 2 * np.asarray(X, np.float64).reshape(5, -1) @ np.linalg.matrix_power(a + a.T, 2)
    result = jax.grad(squares)(X).reshape(5, -1)
    np.testing.assert_allclose(result, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_the_gradient_penalty_is_zero_where_the_slope_is_one():
    w = jax.random.normal(KEY, X.shape[1:])
    linear = lambda scale: lambda x: scale * jnp.sum(x * w, axis=(1, 2, 3)) / jnp.linalg.norm(w)
    keys = jax.random.split(KEY, 5)
    for scale in (1.0, 3.0, 0.0):
        result = penalties.gradient_penalty(linear(scale), X, -X, keys)
        np.testing.assert_allclose(result, np.full(5, (scale - 1) ** 2), atol=1e-5)


def test_the_gradient_penalty_looks_between_real_and_made():
    # D = |x|^2 / 2 has the slope |x|: here |u a + (1 - u) b| with one u an image.
    keys = jax.random.split(KEY, 1000)
    real, fake = jnp.full((1000, 1, 1, 1), 5.0), jnp.full((1000, 1, 1, 1), 2.0)
    result = penalties.gradient_penalty(lambda x: jnp.sum(x**2, (1, 2, 3)) / 2, real, fake, keys)
    slopes = 1 + jnp.sqrt(result)
    assert slopes.min() > 2 and slopes.max() < 5
    np.testing.assert_allclose(jnp.mean(slopes), 3.5, atol=0.1)
    np.testing.assert_allclose(jnp.std(slopes), 3 / np.sqrt(12), atol=0.05)


def test_lecam_and_its_anchors():
    anchors = {"real": jnp.asarray(2.0), "fake": jnp.asarray(-1.0)}
    r, f = jnp.array([3.0, 0.0]), jnp.array([2.0, -4.0])
    np.testing.assert_allclose(penalties.lecam(r, f, anchors), [16 + 0, 1 + 36])
    new = penalties.update_anchors(anchors, 4.0, 1.0, decay=0.75)
    np.testing.assert_allclose([new["real"], new["fake"]], [2.5, -0.5])


def network():
    keys = jax.random.split(jax.random.key(2), 3)
    return {
        "conv": {
            "kernel": jax.random.normal(keys[0], (3, 3, 4, 6)),
            "bias": jax.random.normal(keys[1], (6,)),
        },
        "head": {"logit": {"kernel": jax.random.normal(keys[2], (7, 1))}},
    }


def test_spectral_normalisation_finds_the_largest_singular_value():
    params = network()
    vectors = penalties.spectral_vectors(params, KEY)
    assert vectors["conv"]["kernel"].shape == (6,) and "bias" not in vectors["conv"]
    step = jax.jit(penalties.spectral_normalize)
    for _ in range(200):
        normalised, vectors = step(params, vectors)
    for path in (("conv", "kernel"), ("head", "logit", "kernel")):
        one, other = normalised, params
        for name in path:
            one, other = one[name], other[name]
        matrix = np.asarray(other, np.float64).reshape(-1, other.shape[-1])
        np.testing.assert_allclose(one, other / np.linalg.norm(matrix, 2), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(normalised["conv"]["bias"], params["conv"]["bias"])


def test_one_step_is_one_step_of_power_iteration():
    params = {"kernel": jnp.array([[3.0, 0.0], [0.0, 1.0]])}
    u = jnp.array([0.6, 0.8])
    normalised, vectors = penalties.spectral_normalize(params, {"kernel": u})
    v = np.array([1.8, 0.8]) / np.hypot(1.8, 0.8)
    new = np.array([3 * v[0], v[1]])
    sigma = np.linalg.norm(new)
    np.testing.assert_allclose(vectors["kernel"], new / sigma, rtol=1e-5)
    np.testing.assert_allclose(normalised["kernel"], np.diag([3.0, 1.0]) / sigma, rtol=1e-5)


def test_the_gradient_of_a_normalised_kernel_has_nothing_along_it():
    # W / sigma(W) does not change with the scale of W.
    params = {"kernel": jax.random.normal(KEY, (5, 4))}
    vectors = penalties.spectral_vectors(params, KEY)
    for _ in range(300):
        _, vectors = penalties.spectral_normalize(params, vectors)
    target = jax.random.normal(jax.random.key(5), (5, 4))

    def loss(params):
        return jnp.sum(penalties.spectral_normalize(params, vectors)[0]["kernel"] * target)

    grad = jax.grad(loss)(params)["kernel"]
    np.testing.assert_allclose(jnp.sum(grad * params["kernel"]), 0.0, atol=1e-5)
    assert jnp.abs(grad).max() > 0.01
