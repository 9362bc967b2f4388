"""Priors p(z) that are mixtures of diagonal normals: learned ones, and VampPriors.

The VampPrior (Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120) is the mixture of the
posteriors of K learned pseudo-inputs, 1/K sum_k q(z | u_k): the encoder gives its means and
log-variances.
"""

import jax
import jax.numpy as jnp

from genjax.typing import Array, Float, Key


def mixture_log_prob(
    z: Float[Array, "*batch d"],
    means: Float[Array, "k d"],
    log_variances: Float[Array, "k d"],
    logits: Float[Array, " k"],
) -> Float[Array, "*batch"]:
    """Computes log p(z) of a mixture of k normals with weights softmax(logits)."""
    precisions = jnp.exp(-log_variances)
    # (z - m)^2 / v by three matmuls: [..., K, D] would not fit. Highest, since they cancel.
    dot = lambda a, b: jnp.matmul(a, b.T, precision="highest")
    squares = dot(z**2, precisions) - 2 * dot(z, means * precisions)
    constant = jnp.sum(means**2 * precisions + log_variances + jnp.log(2 * jnp.pi), axis=-1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) - 0.5 * (squares + constant), axis=-1)


def mixture_sample(
    keys: Key[Array, " b"],
    means: Float[Array, "k d"],
    log_variances: Float[Array, "k d"],
    logits: Float[Array, " k"],
    temperature: float | int | Float[Array, ""] = 1.0,
) -> Float[Array, "b d"]:
    """Draws one z for each key; `temperature` multiplies the scales of the components."""

    def one(key):
        component_key, noise_key = jax.random.split(key)
        k = jax.random.categorical(component_key, logits)
        epsilon = jax.random.normal(noise_key, means.shape[1:])
        z = means[k] + temperature * jnp.exp(0.5 * log_variances[k]) * epsilon
        return jnp.where(jnp.isfinite(logits).all(), z, jnp.nan)  # of NaNs some k is drawn, too

    return jax.vmap(one)(keys)
