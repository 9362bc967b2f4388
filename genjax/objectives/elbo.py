"""Evidence lower bounds, and weights of their KL term in training; in nats."""

import jax
import jax.numpy as jnp

from genjax.typing import AnyArray, Array, Float, Int

Step = int | Int[AnyArray, ""] | Float[AnyArray, ""]
Weight = float | Float[Array, ""]


def log_normal(
    z: Float[AnyArray, "*batch d"],
    mean: float | Float[AnyArray, "..."],
    log_variance: float | Float[AnyArray, "..."],
) -> Float[Array, "*batch"]:
    """Computes log N(z; mean, diag exp(log_variance)), summed over the last axis."""
    squares = (z - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(squares + log_variance + jnp.log(2 * jnp.pi), axis=-1)


def importance_bound(log_weights: Float[AnyArray, "b k"]) -> Float[Array, " b"]:
    """Computes log 1/k sum_i w_i, a lower bound of log p(x) (Burda et al. 2016, equation 8).

    It grows with k; with k = 1 it is the ELBO.

    Args:
      log_weights: log p(x, z_i) - log q(z_i | x), with z_i drawn from q.
    """
    return jax.nn.logsumexp(log_weights, axis=-1) - jnp.log(log_weights.shape[-1])


def constant(step: Step, steps: int) -> Weight:
    """Returns 1."""
    return 1.0


def linear(step: Step, steps: int) -> Weight:
    """Rises from 0 to 1 over the first `steps` (Bowman et al. 2016; Sonderby et al. 2016)."""
    return jnp.minimum(1.0, step / steps)


def cyclic(step: Step, steps: int) -> Weight:
    """Repeats every `steps`: from 0 to 1 over the first half, then 1 (Fu et al. 2019, R = 0.5)."""
    return jnp.minimum(1.0, 2.0 * (step % steps) / steps)


# The weight of the KL term, relative to beta: (step, steps) -> [0, 1].
KL_SCHEDULES = {"constant": constant, "linear": linear, "cyclic": cyclic}


def free_bits(mean_kl: Float[AnyArray, " d"], minimum: float | int) -> Float[Array, ""]:
    """Computes the KL term of Kingma et al. 2016 (appendix C.8): sum_d max(minimum, KL_d).

    Args:
      mean_kl: the KL of each latent dimension (or level), the mean over the global batch.
      minimum: nats of each dimension that cost nothing; 0 gives the mean KL.
    """
    return jnp.sum(jnp.maximum(minimum, mean_kl))
