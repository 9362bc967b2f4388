"""Likelihoods p(x | network output), per example, in nats.

A likelihood is three things: how many output channels the network needs for each channel of x, the
log-density of x, and the mean image to show. A new one is a function or two here and its line in
`LIKELIHOODS`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A distribution over images.

    Attributes:
      log_prob: (x [B, H, W, C], outputs [B, H, W, C * outputs_per_channel]) -> nats [B].
      mean: outputs -> images [B, H, W, C] in [0, 1].
      outputs_per_channel: channels of the network's output for each channel of x.
    """

    log_prob: Callable
    mean: Callable
    outputs_per_channel: int = 1


def sum_per_example(x):
    """Sums all axes but the first: [B, ...] -> [B]."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def bernoulli_log_prob(x, logits):
    """log p(x) of independent Bernoulli pixels, summed over pixels.

    log p = x l - log(1 + e^l), written so that it neither overflows nor cancels. For x in {0, 1} it
    is a likelihood; for x between it is the negative cross-entropy, which is not.
    """
    return sum_per_example(x * logits - jax.nn.softplus(logits))


def gaussian_log_prob(x, mean, scale=1.0):
    """log N(x; mean, scale^2), summed over pixels; x in [0, 1] or [-1, 1], continuous."""
    normalised = (x - mean) / scale
    return -0.5 * sum_per_example(normalised**2 + jnp.log(2 * jnp.pi) + 2 * jnp.log(scale))


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_log_prob, jax.nn.sigmoid),
    # Fixed scale 0.1 on pixels in [0, 1], about 25 grey levels.
    "gaussian": Likelihood(
        lambda x, outputs: gaussian_log_prob(x, outputs, 0.1), lambda mean: jnp.clip(mean, 0, 1)
    ),
}
