import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.objectives.divergences import kl_standard_normal
from genjax.objectives.likelihoods import (
    LIKELIHOODS,
    bernoulli_log_prob,
    continuous_bernoulli_log_prob,
    continuous_bernoulli_mean,
    gaussian_log_prob,
)

RNG = np.random.RandomState(0)


def test_bernoulli_is_scipys_summed_over_pixels():
    x = RNG.randint(0, 2, (3, 4, 4, 1)).astype(np.float32)
    logits = RNG.randn(3, 4, 4, 1).astype(np.float32) * 3
    expected = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logits.astype(np.float64))))
    np.testing.assert_allclose(bernoulli_log_prob(x, logits), expected.sum((1, 2, 3)), rtol=1e-5)


def test_bernoulli_survives_saturation():
    logits = jnp.asarray([-1e4, 1e4]).reshape(1, 2, 1, 1)
    right, wrong = jnp.asarray([0.0, 1.0]), jnp.asarray([1.0, 0.0])
    assert float(bernoulli_log_prob(right.reshape(logits.shape), logits)[0]) == 0.0
    assert float(bernoulli_log_prob(wrong.reshape(logits.shape), logits)[0]) == -2e4
    grad = jax.grad(lambda a: bernoulli_log_prob(wrong.reshape(logits.shape), a).sum())(logits)
    np.testing.assert_allclose(grad.ravel(), [1.0, -1.0])


def test_bernoulli_probabilities_sum_to_one_over_all_images():
    logits = jnp.asarray(RNG.randn(2, 3, 1), jnp.float32)
    images = jnp.asarray(np.indices((2,) * 6).reshape(6, -1).T.reshape(-1, 2, 3, 1), jnp.float32)
    log_probs = bernoulli_log_prob(images, jnp.broadcast_to(logits, images.shape))
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1.0, rtol=1e-5)


def test_gaussian_is_scipys():
    x, mean = RNG.rand(2, 3, 4, 4, 3).astype(np.float32)
    expected = stats.norm.logpdf(x, mean, 0.3).sum((1, 2, 3))
    np.testing.assert_allclose(gaussian_log_prob(x, mean, 0.3), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -0.399, -0.05, 0.0, 1e-3, 0.401, 0.5, 8.0, 200.0])
def test_continuous_bernoulli_is_a_density_and_has_its_mean(logit):
    nodes, weights = np.polynomial.legendre.leggauss(400)
    x, weights = 0.5 * (nodes + 1), 0.5 * weights
    images = jnp.asarray(x, jnp.float32).reshape(-1, 1, 1, 1)
    density = np.exp(continuous_bernoulli_log_prob(images, jnp.full(images.shape, logit)))
    np.testing.assert_allclose(density @ weights, 1.0, rtol=2e-5)
    mean = continuous_bernoulli_mean(jnp.float32(logit))
    np.testing.assert_allclose(density @ (weights * x), mean, rtol=1e-4)


@pytest.mark.parametrize("name", list(LIKELIHOODS))
def test_every_likelihood_fits_the_contract(name):
    likelihood = LIKELIHOODS[name]
    x = jnp.asarray(RNG.randint(0, 2, (5, 4, 4, 3)), jnp.float32)
    outputs = jnp.asarray(RNG.randn(5, 4, 4, likelihood.num_outputs(3)), jnp.float32)
    log_prob, mean = jax.jit(likelihood.log_prob)(x, outputs), jax.jit(likelihood.mean)(outputs)
    assert log_prob.shape == (5,) and mean.shape == x.shape
    assert mean.min() >= 0 and mean.max() <= 1
    # Rows are independent of one another, and the gradient is that of finite differences.
    np.testing.assert_allclose(
        jax.jit(likelihood.log_prob)(x[2:3], outputs[2:3]), log_prob[2:3], rtol=1e-6
    )
    with jax.enable_x64(True):
        x64, outputs64 = np.asarray(x, np.float64), np.asarray(outputs, np.float64)
        total = jax.jit(lambda o: likelihood.log_prob(jnp.asarray(x64), o).sum())
        direction, eps = RNG.randn(*outputs.shape), 1e-5
        up, down = total(outputs64 + eps * direction), total(outputs64 - eps * direction)
        slope = (jax.grad(total)(jnp.asarray(outputs64)) * direction).sum()
        np.testing.assert_allclose(slope, (up - down) / (2 * eps), rtol=1e-6)


def test_kl_is_the_closed_form_of_scipy_entropy_and_of_monte_carlo():
    mean, log_variance = RNG.randn(2, 1, 3)
    closed = float(kl_standard_normal(jnp.asarray(mean), jnp.asarray(log_variance))[0])
    scale = np.exp(0.5 * log_variance)
    z = mean + scale * RNG.randn(400_000, 3)
    ratio = stats.norm.logpdf(z, mean, scale).sum(1) - stats.norm.logpdf(z).sum(1)
    assert abs(closed - ratio.mean()) < 5 * ratio.std() / np.sqrt(len(ratio))


def test_kl_is_summed_over_dimensions_and_zero_at_the_prior():
    zero = jnp.zeros((2, 4))
    np.testing.assert_array_equal(kl_standard_normal(zero, zero), 0)
    np.testing.assert_allclose(kl_standard_normal(zero + 2.0, zero), 4 * 2.0)
