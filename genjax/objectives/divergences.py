"""Divergences between distributions, per example, in nats."""

import jax.numpy as jnp

from genjax.typing import AnyArray, Array, Float


def kl_standard_normal(
    mean: Float[AnyArray, "b d"], log_variance: Float[AnyArray, "b d"]
) -> Float[Array, " b"]:
    """Computes KL(N(mean, diag exp(log_variance)) || N(0, I)), summed over latent dimensions.

    Kingma & Welling 2014, appendix B: -1/2 sum(1 + log s^2 - m^2 - s^2).
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)


def kl_standard_normal_per_latent(
    mean: Float[AnyArray, "*shape"], log_variance: Float[AnyArray, "*shape"]
) -> Float[Array, "*shape"]:
    """Computes the same divergence of each latent dimension."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def kl_normal(
    mean: float | Float[AnyArray, "*shape"],
    log_scale: float | Float[AnyArray, "*shape"],
    prior_mean: float | Float[AnyArray, "*shape"],
    prior_log_scale: float | Float[AnyArray, "*shape"],
) -> Float[Array, "*shape"]:
    """Computes KL(N(mean, scale^2) || N(prior_mean, prior_scale^2)) of each element."""
    log_ratio = log_scale - prior_log_scale
    distance = (mean - prior_mean) * jnp.exp(-prior_log_scale)
    return 0.5 * (jnp.exp(2 * log_ratio) + distance**2 - 1.0) - log_ratio
