import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from genjax.objectives.divergences import kl_normal, kl_standard_normal
from genjax.objectives.elbo import KL_SCHEDULES, free_bits, importance_bound, log_normal
from genjax.objectives.priors import mixture_log_prob, mixture_sample

RNG = np.random.RandomState(0)


def test_log_normal_is_scipys():
    z, mean, log_variance = RNG.randn(3, 4, 5)
    expected = stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance)).sum(-1)
    np.testing.assert_allclose(log_normal(z, mean, log_variance), expected, rtol=1e-5)


def test_kl_of_normals_is_monte_carlos_and_that_of_the_standard_normal():
    m, ls, pm, pls = RNG.randn(4) * 0.5
    z = m + np.exp(ls) * RNG.randn(400_000)
    ratio = stats.norm.logpdf(z, m, np.exp(ls)) - stats.norm.logpdf(z, pm, np.exp(pls))
    assert abs(float(kl_normal(m, ls, pm, pls)) - ratio.mean()) < 5 * ratio.std() / 400_000**0.5
    mean, log_scale = RNG.randn(2, 3, 6)
    np.testing.assert_allclose(
        kl_normal(mean, log_scale, 0.0, 0.0).sum(-1),
        kl_standard_normal(mean, 2 * log_scale),
        rtol=1e-5,
    )


def test_the_importance_bound_grows_with_k_towards_the_evidence_and_is_the_elbo_for_one():
    """p(z) = N(0, 1), p(x | z) = N(z, 1): log p(x) is known, and q is a poor guess."""
    x, trials = 0.7, 20_000
    mean, scale = -0.2, 0.9
    z = mean + scale * RNG.randn(trials, 64)
    log_weights = stats.norm.logpdf(z) + stats.norm.logpdf(x, z) - stats.norm.logpdf(z, mean, scale)
    bounds = [np.asarray(importance_bound(jnp.asarray(log_weights[:, :k]))) for k in (1, 2, 8, 64)]
    means = [b.mean() for b in bounds]
    errors = [b.std() / trials**0.5 for b in bounds]
    for low, high, error in zip(means, means[1:], errors):
        assert high > low + 3 * error
    np.testing.assert_allclose(bounds[0], log_weights[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bounds[2], logsumexp(log_weights[:, :8], 1) - np.log(8), rtol=1e-4)
    evidence = stats.norm.logpdf(x, 0, 2**0.5)
    assert means[-1] < evidence + 5 * errors[-1] and evidence - means[-1] < 0.02


def test_schedules_of_the_kl_term():
    at = lambda name, step: float(KL_SCHEDULES[name](step, 10))
    assert [at("constant", s) for s in (0, 3)] == [1, 1]
    assert [at("linear", s) for s in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    np.testing.assert_allclose(
        [at("cyclic", s) for s in (0, 2, 5, 9, 10, 12)], [0, 0.4, 1, 1, 0, 0.4]
    )


def test_free_bits_cost_nothing_and_push_nothing():
    kl = jnp.asarray([0.1, 0.3, 2.0])
    np.testing.assert_allclose(free_bits(kl, 0.25), 0.25 + 0.3 + 2.0)
    np.testing.assert_allclose(free_bits(kl, 0.0), kl.sum())
    np.testing.assert_allclose(jax.grad(free_bits)(kl, 0.25), [0, 1, 1])


def test_a_mixture_prior_is_scipys_and_draws_from_itself():
    means, log_variances = RNG.randn(2, 3, 2)
    logits, z = RNG.randn(3), RNG.randn(7, 4, 2)
    parts = stats.norm.logpdf(z[..., None, :], means, np.exp(0.5 * log_variances)).sum(-1)
    expected = logsumexp(parts + logits - logsumexp(logits), axis=-1)
    components = [jnp.asarray(v, jnp.float32) for v in (means, log_variances, logits)]
    np.testing.assert_allclose(mixture_log_prob(jnp.asarray(z), *components), expected, rtol=1e-4)

    keys = jax.random.split(jax.random.key(0), 40_000)
    drawn = np.asarray(jax.jit(mixture_sample)(keys, *components))
    weights = np.exp(logits - logsumexp(logits))
    mean = weights @ means
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * drawn.std(0).max() / 200)
    second = weights @ (means**2 + np.exp(log_variances))
    np.testing.assert_allclose(drawn.var(0), second - mean**2, rtol=0.05)


@pytest.mark.parametrize("k", [1, 4])
def test_a_mixture_of_equal_components_is_that_component(k):
    z = RNG.randn(5, 3)
    components = jnp.zeros((k, 3)), jnp.zeros((k, 3)), jnp.asarray(RNG.randn(k))
    expected = stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(mixture_log_prob(jnp.asarray(z), *components), expected, rtol=1e-5)
