"""Evidence lower bounds and what is done to their KL term in training; nats throughout."""

import jax
import jax.numpy as jnp


def log_normal(z, mean, log_variance):
    """log N(z; mean, diag exp(log_variance)), summed over the last axis."""
    squares = (z - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(squares + log_variance + jnp.log(2 * jnp.pi), axis=-1)


def importance_bound(log_weights):
    """log 1/k sum_i w_i, a lower bound of log p(x) that grows with k (Burda et al. 2016, eq. 8).

    Args:
      log_weights: [B, k], log p(x, z_i) - log q(z_i | x) with z_i drawn from q. k = 1: the ELBO.

    Returns:
      [B].
    """
    return jax.nn.logsumexp(log_weights, axis=-1) - jnp.log(log_weights.shape[-1])


def constant(step, steps):
    return 1.0


def linear(step, steps):
    """From 0 to 1 over the first `steps` (Bowman et al. 2016; Sonderby et al. 2016)."""
    return jnp.minimum(1.0, step / steps)


def cyclic(step, steps):
    """Every `steps` again: from 0 to 1 over the first half, then 1 (Fu et al. 2019, R = 0.5)."""
    return jnp.minimum(1.0, 2.0 * (step % steps) / steps)


# The weight of the KL term, as a share of beta: (step, steps) -> [0, 1].
KL_SCHEDULES = {"constant": constant, "linear": linear, "cyclic": cyclic}


def free_bits(mean_kl, minimum):
    """The KL term of Kingma et al. 2016 (appendix C.8): sum_d max(minimum, KL_d).

    Args:
      mean_kl: [D], the KL of each latent dimension (or level), the mean over the global batch.
      minimum: nats of each dimension that cost nothing; 0 gives the mean KL.
    """
    return jnp.sum(jnp.maximum(minimum, mean_kl))
