"""Priors p(z) that are mixtures of diagonal normals: learned ones, and VampPriors.

The VampPrior (Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120) is the mixture of the
posteriors of K learned pseudo-inputs, 1/K sum_k q(z | u_k): whoever has an encoder has its means
and log-variances.
"""

import jax
import jax.numpy as jnp


def mixture_log_prob(z, means, log_variances, logits):
    """log p(z) of a mixture of K normals with weights softmax(logits).

    Args:
      z: [..., D].
      means, log_variances: [K, D].
      logits: [K].

    Returns:
      [...].
    """
    precisions = jnp.exp(-log_variances)
    # (z - m)^2 / v by three matmuls: [..., K, D] would not fit. Highest, since they cancel.
    dot = lambda a, b: jnp.matmul(a, b.T, precision="highest")
    squares = dot(z**2, precisions) - 2 * dot(z, means * precisions)
    constant = jnp.sum(means**2 * precisions + log_variances + jnp.log(2 * jnp.pi), axis=-1)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) - 0.5 * (squares + constant), axis=-1)


def mixture_sample(keys, means, log_variances, logits, temperature=1.0):
    """One z for each of keys [B] -> [B, D]; `temperature` is of the components' scales."""

    def one(key):
        chosen, noise = jax.random.split(key)
        k = jax.random.categorical(chosen, logits)
        epsilon = jax.random.normal(noise, means.shape[1:])
        return means[k] + temperature * jnp.exp(0.5 * log_variances[k]) * epsilon

    return jax.vmap(one)(keys)
