"""Divergences between distributions, per example, in nats."""

import jax.numpy as jnp


def kl_standard_normal(mean, log_variance):
    """KL(N(mean, diag exp(log_variance)) || N(0, I)), summed over latent dimensions.

    Kingma & Welling 2014, appendix B: -1/2 sum(1 + log s^2 - m^2 - s^2). [B, D] -> [B].
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)


def kl_standard_normal_per_latent(mean, log_variance):
    """The same of each latent dimension: [..., D] -> [..., D]."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def kl_normal(mean, log_scale, prior_mean, prior_log_scale):
    """KL(N(mean, scale^2) || N(prior_mean, prior_scale^2)) of each element, any shape."""
    log_ratio = log_scale - prior_log_scale
    distance = (mean - prior_mean) * jnp.exp(-prior_log_scale)
    return 0.5 * (jnp.exp(2 * log_ratio) + distance**2 - 1.0) - log_ratio
