"""Bounds and densities against closed forms."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from genjax.diffusion.likelihood import (
    dequantize,
    discretized_normal_log_prob,
    ode_log_prob,
    rademacher,
    vlb_terms,
)
from genjax.diffusion.process import ddpm_linear
from genjax.diffusion.schedules import linear, log_snr
from genjax.errors import UserError
from tests.diffusion.gaussian import CASES, MEAN, STD, denoiser


@pytest.mark.parametrize("mean,std", [(0.0, 0.3), (0.98, 0.005), (-1.5, 0.1)])
def test_discretised_normal_is_a_distribution_over_pixels(mean, std):
    values = (jnp.arange(256) / 127.5 - 1)[:, None]
    log_p = jax.jit(discretized_normal_log_prob)(values, jnp.full((256, 1), mean), std)
    log_p = np.asarray(log_p)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p.astype(np.float64)).sum(), 1.0, rtol=2e-4)
    edges = np.arange(255) / 127.5 - 1 + 1 / 255
    cdf = np.concatenate([[0], norm.cdf(edges, mean, std), [1]])
    likely = np.diff(cdf) > 1e-6
    np.testing.assert_allclose(np.exp(log_p)[likely], np.diff(cdf)[likely], rtol=2e-3)


@pytest.mark.parametrize("name", ["ddpm_linear", "edm"])
def test_terms_of_the_bound_are_those_of_gaussian_data(name):
    process = ddpm_linear(40, 1e-3, 0.3) if name == "ddpm_linear" else CASES[name]
    times = linear(process, 40) if process.num_steps else log_snr(process, 400)
    n, dims = 20_000, 2
    x0 = jnp.asarray(np.random.default_rng(0).normal(MEAN, STD, (n, dims)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), n)
    terms = jax.jit(
        lambda x0, keys: vlb_terms(denoiser(process), process, times, x0, keys, num_draws=39)
    )(x0, keys)
    alpha, sigma = (np.asarray(c, np.float64) for c in process.alpha_sigma(times))
    # E |x_0 - x0_hat|^2 is the posterior's variance.
    variance = 1 / (STD**-2 + (alpha / sigma) ** 2)
    diffusion = 0.5 * np.sum(np.diff((alpha / sigma) ** 2) * variance[:-1]) * dims
    np.testing.assert_allclose(terms["diffusion"].mean(), diffusion, rtol=0.01)
    p = float(process.prior_std)
    second = alpha[0] ** 2 * np.asarray(x0, np.float64) ** 2 + sigma[0] ** 2
    prior = 0.5 * (second / p**2 - 1 - np.log(sigma[0] ** 2 / p**2)).sum(1)
    np.testing.assert_allclose(terms["prior"], prior, rtol=1e-3, atol=2e-5)
    # The sum of the terms bounds the entropy of the pixels, and nearly reaches it.
    bins = np.diff(norm.cdf((np.arange(-2000, 2001) - 0.5) / 127.5, MEAN, STD))
    bins = bins[bins > 0]
    entropy = -dims * np.sum(bins * np.log(bins))
    exact = np.asarray(jnp.round((x0 + 1) * 127.5) / 127.5 - 1)
    inside = np.abs(exact).max(axis=1) < 0.99
    assert terms["reconstruction"][inside].mean() + diffusion > 0.9 * entropy


def test_all_terms_at_once_is_the_sum():
    process = CASES["ddpm_linear"]
    times = linear(process, 12)
    x0, keys = jnp.full((2, 3), 0.25), jax.random.split(jax.random.key(0), 2)
    constant = lambda x, t: jnp.full_like(x, 0.75)  # independent of the noise: every term is known
    terms = jax.jit(lambda x0, keys: vlb_terms(constant, process, times, x0, keys, num_draws=11))
    alpha, sigma = (np.asarray(c, np.float64) for c in process.alpha_sigma(times))
    expected = 0.5 * np.sum(np.diff((alpha / sigma) ** 2)) * 3 * 0.25
    np.testing.assert_allclose(terms(x0, keys)["diffusion"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["ddpm_linear", "sub_vp", "edm", "flow"])
def test_the_odes_density_is_the_gaussians(name):
    process = CASES[name]
    rng = np.random.default_rng(0)
    # The prior has mean 0; x has too, because alpha = exp(-5) at VP's t = 1, not 0.
    x = jnp.asarray(rng.normal(0.0, STD, (4, 2, 2, 1)), jnp.float32)
    denoise = denoiser(process, mean=0.0)
    probes = rademacher(jax.random.split(jax.random.key(0), 4), x.shape[1:])
    run = jax.jit(lambda x, probes: ode_log_prob(denoise, process, x, probes, 1e-6))
    log_prob, steps = run(x, probes)
    alpha, sigma = (float(c) for c in process.alpha_sigma(jnp.float32(process.t_min)))
    std = np.sqrt(STD**2 + (sigma / alpha) ** 2)
    expected = norm.logpdf(x, 0.0, std).sum(axis=(1, 2, 3))
    bits = np.abs(np.asarray(log_prob) - expected) / (4 * np.log(2))
    assert bits.max() < 1e-3, (bits, steps)


def test_a_hard_ode_is_not_given_a_number():
    process = CASES["edm"]
    x = jnp.zeros((1, 2))
    run = jax.jit(lambda x: ode_log_prob(denoiser(process), process, x, jnp.ones((1, 2)), 1e-6, 3))
    assert np.isnan(run(x)[0]).all()


def test_without_diffrax_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)  # importing it fails as if not installed
    x = jnp.zeros((1, 2))
    with pytest.raises(UserError, match=r"pip install -e '\.\[ode\]'") as error:
        ode_log_prob(denoiser(CASES["edm"]), CASES["edm"], x, x)
    assert "\n" not in str(error.value)


def test_rademacher_probes_are_signs_of_their_own_keys():
    keys = jax.random.split(jax.random.key(0), 50)
    probes = np.asarray(rademacher(keys, (8, 8, 3)))
    assert probes.dtype == np.float32 and set(np.unique(probes)) == {-1.0, 1.0}
    assert abs(probes.mean()) < 0.05
    np.testing.assert_array_equal(rademacher(keys[7:9], (8, 8, 3)), probes[7:9])


def test_dequantised_pixels_stay_in_their_bins():
    x = (jnp.arange(256) / 127.5 - 1)[None]
    u = dequantize(x, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_array_equal(np.floor((u + 1) * 128)[0], np.arange(256))
