"""Mixtures of discretised logistics (Salimans et al. 2017, https://arxiv.org/abs/1701.05517).

A pixel's C channels are drawn from one of K components, with weights softmax(logits). Within a
component channel c is logistic, rounded to one of the levels of [-1, 1], and its location depends
on the channels before it (section 2.2, here for any C):

  location_c = mu_c + sum_{b < c} tanh(coefficient_cb) x_b.

The mass of a level is that of the logistic distribution between the two edges of its bin; the
outermost bins reach to infinity, so that the masses of all levels sum to 1.

The outputs of a network are, for each pixel, K (1 + 2 C + C (C - 1) / 2) numbers: logits [K],
means [C, K], log-scales [C, K], coefficients [C (C - 1) / 2, K], for c, b = (1, 0), (2, 0), (2, 1).
"""

import dataclasses

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.typing import AnyArray, Array, Float, Key

# The lower bound is the paper's; at the upper one, all levels but the two outermost are alike.
MIN_LOG_SCALE, MAX_LOG_SCALE = -7.0, 7.0


@dataclasses.dataclass(frozen=True)
class LogisticMixture:
    """The parameters of the distributions of pixels.

    Attributes:
      logits: of the components.
      means, log_scales: of each channel and component.
      coefficients: [..., C (C - 1) / 2, K], in (-1, 1).
    """

    logits: Float[AnyArray, "*pixels k"]
    means: Float[AnyArray, "*pixels c k"]
    log_scales: Float[AnyArray, "*pixels c k"]
    coefficients: Float[AnyArray, "*pixels pairs k"]


def num_outputs(channels: int, components: int) -> int:
    """Returns the number of outputs for each pixel."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def unpack(outputs: Float[AnyArray, "*pixels o"], channels: int) -> LogisticMixture:
    """Splits network outputs into parameters."""
    components = outputs.shape[-1] // num_outputs(channels, 1)
    rows = outputs.reshape(*outputs.shape[:-1], -1, components)
    return LogisticMixture(
        logits=rows[..., 0, :],
        means=rows[..., 1 : 1 + channels, :],
        log_scales=jnp.clip(
            rows[..., 1 + channels : 1 + 2 * channels, :], MIN_LOG_SCALE, MAX_LOG_SCALE
        ),
        coefficients=jnp.tanh(rows[..., 1 + 2 * channels :, :]),
    )


def _location(mixture, channel, before):
    """Computes location_c [..., K] of the channels before it, each broadcast to [..., K]."""
    first = channel * (channel - 1) // 2
    location = mixture.means[..., channel, :]
    for b in range(channel):
        location = location + mixture.coefficients[..., first + b, :] * before[b]
    return location


def log_prob(
    x: Float[AnyArray, "*#pixels c"], outputs: Float[AnyArray, "*#pixels o"], levels: int = 256
) -> Float[Array, "..."]:
    """Computes log P(x) of each pixel, of all its channels together, in nats.

    Args:
      x: on the levels -1, -1 + 2 / (levels - 1), ..., 1.
      outputs: of the network, num_outputs(C, K) for each pixel.
      levels: number of values of a channel.
    """
    channels = x.shape[-1]
    mixture = unpack(outputs, channels)
    x = x[..., None]  # against K components
    half = 1.0 / (levels - 1)
    total = jax.nn.log_softmax(mixture.logits)
    for c in range(channels):
        location = _location(mixture, c, [x[..., b, :] for b in range(c)])
        inverse_scale = jnp.exp(-mixture.log_scales[..., c, :])
        centred = x[..., c, :] - location
        upper, lower = (centred + half) * inverse_scale, (centred - half) * inverse_scale
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - e^(l - u)), exact in the tails too.
        log_below, log_above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
        inside = log_below + log_above + jnp.log(-jnp.expm1(-2 * half * inverse_scale))
        first, last = x[..., c, :] < -1 + half, x[..., c, :] > 1 - half
        total += jnp.where(first, log_below, jnp.where(last, log_above, inside))
    return jax.nn.logsumexp(total, axis=-1)


def mean(
    outputs: Float[AnyArray, "*pixels o"], channels: int
) -> Float[Array, "*pixels {channels}"]:
    """Computes the mean of each pixel before rounding and clipping, mostly in [-1, 1]."""
    mixture = unpack(outputs, channels)
    weights = jax.nn.softmax(mixture.logits)
    means = []
    for c in range(channels):  # of each component: locations are linear in the channels before
        means.append(_location(mixture, c, means))
    return jnp.stack([jnp.sum(weights * m, axis=-1) for m in means], axis=-1)


def sample(
    keys: Key[Array, " b"],
    outputs: Float[AnyArray, "b *pixels o"],
    channels: int = 3,
    levels: int = 256,
    temperature: float | int | Float[AnyArray, ""] = 1.0,
) -> Float[Array, "b *pixels {channels}"]:
    """Draws images on the levels of [-1, 1], row i from keys[i]; see `from_uniforms`."""
    uniforms = rng.uniform(keys, (*outputs.shape[1:-1], 1 + channels))
    return from_uniforms(uniforms, outputs, levels, temperature)


def from_uniforms(
    uniforms: Float[AnyArray, "*pixels u"],
    outputs: Float[AnyArray, "*pixels o"],
    levels: int = 256,
    temperature: float | int | Float[AnyArray, ""] = 1.0,
) -> Float[Array, "*pixels c"]:
    """Draws images by inverting the distribution functions at uniforms [..., 1 + C].

    `temperature` divides the logits and multiplies the scales; 0 gives the location of the most
    probable component.
    """
    channels = uniforms.shape[-1] - 1
    mixture = unpack(outputs, channels)
    weights = jax.nn.softmax(mixture.logits / jnp.maximum(temperature, 1e-6))
    cumulative = jnp.cumsum(weights, axis=-1)
    component = jnp.sum(uniforms[..., :1] >= cumulative[..., :-1], axis=-1, keepdims=True)
    u = jnp.clip(uniforms[..., 1:], 1e-6, 1 - 1e-6)
    logistic = jnp.log(u) - jnp.log1p(-u)
    x = []
    for c in range(channels):
        location = _location(mixture, c, [v[..., None] for v in x])
        location, log_scale = (
            jnp.take_along_axis(v, component, axis=-1)[..., 0]
            for v in (location, mixture.log_scales[..., c, :])
        )
        drawn = location + temperature * jnp.exp(log_scale) * logistic[..., c]
        x.append(_nearest_level(drawn, levels))
    return jnp.stack(x, axis=-1)


def _nearest_level(x, levels):
    steps = jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * (levels - 1) / 2)
    return steps * 2.0 / (levels - 1) - 1.0
