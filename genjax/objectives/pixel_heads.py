"""Heads of autoregressive networks: p(one pixel | outputs of the network there), over integers.

A pixel holds a value in 0 .. levels - 1 for each channel. A new head is a class with these methods
and its line in `HEADS`. A value is drawn by inverting the distribution function at a uniform number
that was drawn beforehand, one for each channel and whatever else the head needs.
"""

import dataclasses

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.objectives import logistic_mixture


@dataclasses.dataclass(frozen=True)
class Head:
    """What all heads share.

    Attributes:
      levels: values a channel can take.
      channels: C.
      components: of a mixture.
      one_hot: networks see values as one-hot vectors (codes, which have no order), not as numbers.

    A head of its own has `num_outputs`; `log_prob(values, outputs)`, nats [B, H, W] of integer
    values [B, H, W, C] and outputs [B, H, W, num_outputs]; `draw(uniforms, outputs, temperature)`,
    the values of uniforms [..., num_uniforms].
    """

    levels: int = 256
    channels: int = 1
    components: int = 10
    one_hot: bool = False
    channelwise = True  # colours are drawn one after the other, each by a pass of the network

    @property
    def num_uniforms(self):
        return self.channels

    def uniforms(self, keys, shape):
        """[B, H, W, num_uniforms], image i of keys[i]."""
        return rng.uniform(keys, (*shape[:2], self.num_uniforms))

    def encode(self, values):
        """What the network sees of values [..., C]: float32 in [-1, 1], or one-hot [..., C L]."""
        if self.one_hot:
            hot = jax.nn.one_hot(values, self.levels)  # channel k mod C is about channel k
            return jnp.swapaxes(hot, -1, -2).reshape(*values.shape[:-1], -1)
        return values.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0


@dataclasses.dataclass(frozen=True)
class Bernoulli(Head):
    """Independent binary channels, one logit each."""

    @property
    def num_outputs(self):
        return self.channels

    def log_prob(self, values, outputs):
        nats = values.astype(jnp.float32) * outputs - jax.nn.softplus(outputs)
        return jnp.sum(nats, -1)

    def draw(self, uniforms, outputs, temperature):
        return (uniforms < jax.nn.sigmoid(outputs / temperature)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Softmax(Head):
    """A probability of its own for each level (van den Oord et al. 2016a, section 3.1)."""

    @property
    def num_outputs(self):
        return self.channels * self.levels

    def _logits(self, outputs):
        """[..., L C], channel k mod C about colour k, -> [..., C, L]."""
        return jnp.swapaxes(outputs.reshape(*outputs.shape[:-1], self.levels, -1), -1, -2)

    def log_prob(self, values, outputs):
        logs = jax.nn.log_softmax(self._logits(outputs))
        return jnp.sum(jnp.take_along_axis(logs, values[..., None], -1)[..., 0], -1)

    def draw(self, uniforms, outputs, temperature):
        cumulative = jnp.cumsum(jax.nn.softmax(self._logits(outputs) / temperature), -1)
        return jnp.sum(uniforms[..., None] >= cumulative[..., :-1], -1, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class LogisticMixture(Head):
    """The discretised mixture of logistics; colours are coupled in it, one pass draws a pixel."""

    channelwise = False

    @property
    def num_outputs(self):
        return logistic_mixture.num_outputs(self.channels, self.components)

    @property
    def num_uniforms(self):
        return 1 + self.channels

    def log_prob(self, values, outputs):
        x = values.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0
        return logistic_mixture.log_prob(x, outputs, self.levels)

    def draw(self, uniforms, outputs, temperature):
        x = logistic_mixture.from_uniforms(uniforms, outputs, self.levels, temperature)
        return jnp.round((x + 1.0) * ((self.levels - 1) / 2)).astype(jnp.int32)


HEADS = {"bernoulli": Bernoulli, "softmax": Softmax, "logistic_mixture": LogisticMixture}
