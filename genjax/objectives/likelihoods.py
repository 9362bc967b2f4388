"""Likelihoods p(x | network output), per example, in nats, of images with pixels in [0, 1].

A likelihood is three things: how many output channels the network needs, the log-density (or, of
discrete pixels, the log-probability) of x, and the mean image to show. A new one is a function or
two here and its line in `LIKELIHOODS`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.objectives import logistic_mixture


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A distribution over images.

    Attributes:
      log_prob: (x [B, H, W, C], outputs [B, H, W, num_outputs(C)]) -> nats [B].
      mean: outputs -> images [B, H, W, C] in [0, 1].
      num_outputs: C -> channels of the network's output.
      over: what it is a distribution of: "binary" pixels, "continuous" ones, or the 256 "levels"
        of 8-bit ones.
    """

    log_prob: Callable
    mean: Callable
    num_outputs: Callable = lambda channels: channels
    over: str = "continuous"


def sum_per_example(x):
    """Sums all axes but the first: [B, ...] -> [B]."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def bernoulli_log_prob(x, logits):
    """log p(x) of independent Bernoulli pixels, summed over pixels.

    log p = x l - log(1 + e^l), written so that it neither overflows nor cancels. For x in {0, 1} it
    is a likelihood; for x between it is the negative cross-entropy, which is not.
    """
    return sum_per_example(x * logits - jax.nn.softplus(logits))


def _log_sinhc(h):
    """log(sinh(h) / h), even in h; by its series where the quotient cancels."""
    small = jnp.abs(h) < 0.2
    a = jnp.where(small, 1.0, jnp.abs(h))
    large = a + jnp.log(-jnp.expm1(-2 * a)) - jnp.log(2 * a)
    return jnp.where(small, h**2 / 6 - h**4 / 180 + h**6 / 2835, large)


def continuous_bernoulli_log_prob(x, logits):
    """log p(x) of x in [0, 1] (Loaiza-Ganem & Cunningham 2019), summed over pixels.

    p(x) = e^(x l) l / (e^l - 1): the Bernoulli's formula with the constant that makes it a density.
    https://arxiv.org/abs/1907.06845
    """
    return sum_per_example((x - 0.5) * logits - _log_sinhc(0.5 * logits))


def continuous_bernoulli_mean(logits):
    """1 / (1 - e^-l) - 1 / l, in (0, 1)."""
    small = jnp.abs(logits) < 0.1
    safe = jnp.where(small, 1.0, logits)
    series = 0.5 + logits / 12 - logits**3 / 720
    return jnp.where(small, series, 0.5 + 0.5 / jnp.tanh(0.5 * safe) - 1.0 / safe)


def gaussian_log_prob(x, mean, scale=1.0):
    """log N(x; mean, scale^2), summed over pixels; x in [0, 1] or [-1, 1], continuous."""
    normalised = (x - mean) / scale
    return -0.5 * sum_per_example(normalised**2 + jnp.log(2 * jnp.pi) + 2 * jnp.log(scale))


# Half a grey level: a density of 8-bit pixels without noise has no bound.
MIN_SCALE = 0.5 / 255


def learned_gaussian(outputs):
    """Network outputs [..., 2 C] -> mean, scale, each [..., C]; scales start near 0.1."""
    mean, raw = jnp.split(outputs, 2, axis=-1)
    return mean, MIN_SCALE + jnp.exp(raw - 2.3)


def _learned_gaussian_log_prob(x, outputs):
    return gaussian_log_prob(x, *learned_gaussian(outputs))


# Components of the mixture of logistics; 10 as in PixelCNN++ and VDVAE.
COMPONENTS = 10


def logistic_mixture_outputs(channels):
    return logistic_mixture.num_outputs(channels, COMPONENTS)


def _channels_of(outputs):
    known = {logistic_mixture_outputs(c): c for c in range(1, 5)}
    return known[outputs.shape[-1]]


def logistic_mixture_log_prob(x, outputs):
    """log P of 8-bit pixels x = level / 255, see `genjax.objectives.logistic_mixture`."""
    return sum_per_example(logistic_mixture.log_prob(2 * x - 1, outputs))


def logistic_mixture_mean(outputs):
    mean = logistic_mixture.mean(outputs, _channels_of(outputs))
    return jnp.clip(0.5 * (mean + 1.0), 0, 1)


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_log_prob, jax.nn.sigmoid, over="binary"),
    "continuous_bernoulli": Likelihood(continuous_bernoulli_log_prob, continuous_bernoulli_mean),
    # Fixed scale 0.1 on pixels in [0, 1], about 25 grey levels.
    "gaussian": Likelihood(
        lambda x, outputs: gaussian_log_prob(x, outputs, 0.1), lambda mean: jnp.clip(mean, 0, 1)
    ),
    # A scale for each pixel and channel.
    "gaussian_learned_scale": Likelihood(
        _learned_gaussian_log_prob,
        lambda outputs: jnp.clip(learned_gaussian(outputs)[0], 0, 1),
        lambda channels: 2 * channels,
    ),
    "logistic_mixture": Likelihood(
        logistic_mixture_log_prob,
        logistic_mixture_mean,
        logistic_mixture_outputs,
        over="levels",
    ),
}
