"""Divergences between distributions, per example, in nats."""

import jax.numpy as jnp


def kl_standard_normal(mean, log_variance):
    """KL(N(mean, diag exp(log_variance)) || N(0, I)), summed over latent dimensions.

    Kingma & Welling 2014, appendix B: -1/2 sum(1 + log s^2 - m^2 - s^2). [B, D] -> [B].
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)
