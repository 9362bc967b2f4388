"""Likelihoods p(x | network output), per example, in nats, of images with pixels in [0, 1].

A likelihood consists of the number of output channels that the network needs, the log-density (of
discrete pixels: the log-probability) of x, and the mean image to show. A new one is one or two
functions of this module and an entry of `LIKELIHOODS`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.data.transforms import clip_to_unit
from genjax.objectives import logistic_mixture
from genjax.typing import AnyArray, Array, Float, Num


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A distribution over images.

    Attributes:
      log_prob: (x [B, H, W, C], outputs [B, H, W, num_outputs(C)]) -> nats [B].
      mean: outputs -> images [B, H, W, C] in [0, 1].
      num_outputs: C -> channels of the network's output.
      over: its pixels: "binary", "continuous", or the 256 "levels" of 8-bit images.
    """

    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    num_outputs: Callable[[int], int] = lambda channels: channels
    over: str = "continuous"


def sum_per_example(x: Num[AnyArray, "b *shape"]) -> Num[Array, " b"]:
    """Sums over all axes but the first."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


# --- Bernoulli ------------------------------------------------------------------------------------


def bernoulli_log_prob(
    x: Float[AnyArray, "b *shape"], logits: Float[AnyArray, "b *shape"]
) -> Float[Array, " b"]:
    """Computes log p(x) of independent Bernoulli pixels, summed over pixels.

    log p = x l - log(1 + e^l), written so that it neither overflows nor cancels. For x in {0, 1} it
    is a likelihood; for x in between it is the negative cross-entropy, which is not.
    """
    return sum_per_example(x * logits - jax.nn.softplus(logits))


def _log_sinhc(h):
    """Computes log(sinh(h) / h), even in h; by its series where the quotient cancels."""
    small = jnp.abs(h) < 0.2
    a = jnp.where(small, 1.0, jnp.abs(h))
    large = a + jnp.log(-jnp.expm1(-2 * a)) - jnp.log(2 * a)
    return jnp.where(small, h**2 / 6 - h**4 / 180 + h**6 / 2835, large)


def continuous_bernoulli_log_prob(
    x: Float[AnyArray, "b *shape"], logits: Float[AnyArray, "b *shape"]
) -> Float[Array, " b"]:
    """Computes log p(x) of x in [0, 1], summed over pixels (Loaiza-Ganem & Cunningham 2019).

    p(x) = e^(x l) l / (e^l - 1): the formula of the Bernoulli distribution with the constant that
    makes it a density. https://arxiv.org/abs/1907.06845
    """
    return sum_per_example((x - 0.5) * logits - _log_sinhc(0.5 * logits))


def continuous_bernoulli_mean(logits: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Computes 1 / (1 - e^-l) - 1 / l, in (0, 1)."""
    small = jnp.abs(logits) < 0.1
    safe = jnp.where(small, 1.0, logits)
    series = 0.5 + logits / 12 - logits**3 / 720
    return jnp.where(small, series, 0.5 + 0.5 / jnp.tanh(0.5 * safe) - 1.0 / safe)


# --- Gaussian -------------------------------------------------------------------------------------

# Half a grey level: a density of 8-bit pixels without noise has no bound.
MIN_SCALE = 0.5 / 255


def gaussian_log_prob(
    x: Float[AnyArray, "b *shape"],
    mean: Float[AnyArray, "b *shape"],
    scale: float | Float[AnyArray, "b *shape"] = 1.0,
) -> Float[Array, " b"]:
    """Computes log N(x; mean, scale^2), summed over pixels; x is continuous."""
    normalised = (x - mean) / scale
    return -0.5 * sum_per_example(normalised**2 + jnp.log(2 * jnp.pi) + 2 * jnp.log(scale))


def learned_gaussian(
    outputs: Float[AnyArray, "*shape channels"],
) -> tuple[Float[Array, "*shape c"], Float[Array, "*shape c"]]:
    """Splits network outputs [..., 2 C] into mean and scale; scales start near 0.1."""
    mean, raw = jnp.split(outputs, 2, axis=-1)
    return mean, MIN_SCALE + jnp.exp(raw - 2.3)


def _learned_gaussian_log_prob(x, outputs):
    return gaussian_log_prob(x, *learned_gaussian(outputs))


# --- Mixture of logistics -------------------------------------------------------------------------

# Components of the mixture of logistics; 10 as in PixelCNN++ and VDVAE.
COMPONENTS = 10


def logistic_mixture_outputs(channels: int) -> int:
    """Returns the number of output channels for C channels."""
    return logistic_mixture.num_outputs(channels, COMPONENTS)


def _channels_of(outputs):
    """Returns C of network outputs."""
    channels = {logistic_mixture_outputs(c): c for c in range(1, 5)}
    return channels[outputs.shape[-1]]


def logistic_mixture_log_prob(
    x: Float[AnyArray, "b h w c"], outputs: Float[AnyArray, "b h w outputs"]
) -> Float[Array, " b"]:
    """Computes log P of 8-bit pixels x = level / 255, see `genjax.objectives.logistic_mixture`."""
    return sum_per_example(logistic_mixture.log_prob(2 * x - 1, outputs))


def logistic_mixture_mean(outputs: Float[AnyArray, "b h w outputs"]) -> Float[Array, "b h w c"]:
    """Computes the mean images."""
    mean = logistic_mixture.mean(outputs, _channels_of(outputs))
    return clip_to_unit(0.5 * (mean + 1.0))


# --- By name --------------------------------------------------------------------------------------

LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_log_prob, jax.nn.sigmoid, over="binary"),
    "continuous_bernoulli": Likelihood(continuous_bernoulli_log_prob, continuous_bernoulli_mean),
    # Fixed scale 0.1 on pixels in [0, 1], about 25 grey levels.
    "gaussian": Likelihood(lambda x, outputs: gaussian_log_prob(x, outputs, 0.1), clip_to_unit),
    # A scale for each pixel and channel.
    "gaussian_learned_scale": Likelihood(
        _learned_gaussian_log_prob,
        lambda outputs: clip_to_unit(learned_gaussian(outputs)[0]),
        lambda channels: 2 * channels,
    ),
    "logistic_mixture": Likelihood(
        logistic_mixture_log_prob,
        logistic_mixture_mean,
        logistic_mixture_outputs,
        over="levels",
    ),
}
