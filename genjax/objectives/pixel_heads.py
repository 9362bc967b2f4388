"""Heads of autoregressive networks: p(one pixel | outputs of the network there), over integers.

A pixel has a value in 0 .. levels - 1 for each channel. A new head is a subclass of `Head` and an
entry of `HEADS`. A value is drawn by inverting the distribution function at a uniform number that
was drawn beforehand; a head needs one for each channel, and perhaps more.
"""

import dataclasses

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.objectives import logistic_mixture
from genjax.typing import AnyArray, Array, Float, Int, Key, Shape

Temperature = float | int | Float[AnyArray, ""]


@dataclasses.dataclass(frozen=True)
class Head:
    """The base of all heads.

    Attributes:
      levels: number of values of a channel.
      channels: C.
      components: of a mixture.
      one_hot: whether networks take values as one-hot vectors (for codes, which have no order)
        instead of numbers.
      channelwise: whether colours are drawn one after the other, each by a pass of the network.
    """

    levels: int = 256
    channels: int = 1
    components: int = 10
    one_hot: bool = False
    channelwise = True

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        raise NotImplementedError

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that a pixel needs."""
        return self.channels

    def log_prob(
        self, values: Int[Array, "*pixels c"], outputs: Float[Array, "*pixels o"]
    ) -> Float[Array, "*pixels"]:
        """Computes the log-probability of each pixel, in nats."""
        raise NotImplementedError

    def draw(
        self,
        uniforms: Float[Array, "*pixels u"],
        outputs: Float[Array, "*pixels o"],
        temperature: Temperature,
    ) -> Int[Array, "*pixels c"]:
        """Returns the values at uniform numbers, int32."""
        raise NotImplementedError

    def uniforms(self, keys: Key[Array, " b"], shape: Shape) -> Float[Array, "b h w u"]:
        """Draws the uniform numbers of images of `shape` (H, W, C), those of image i by keys[i]."""
        return rng.uniform(keys, (*shape[:2], self.num_uniforms))

    def encode(self, values: Int[Array, "*pixels c"]) -> Float[Array, "*pixels inputs"]:
        """Returns the network's inputs: float32 in [-1, 1], or one-hot [..., C L]."""
        if self.one_hot:
            hot = jax.nn.one_hot(values, self.levels)  # input k describes channel k mod C
            return jnp.swapaxes(hot, -1, -2).reshape(*values.shape[:-1], -1)
        return values.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0


@dataclasses.dataclass(frozen=True)
class Bernoulli(Head):
    """Independent binary channels, one logit each."""

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return self.channels

    def log_prob(
        self, values: Int[Array, "*pixels c"], outputs: Float[Array, "*pixels c"]
    ) -> Float[Array, "*pixels"]:
        """Computes the log-probability of each pixel, in nats."""
        nats = values.astype(jnp.float32) * outputs - jax.nn.softplus(outputs)
        return jnp.sum(nats, -1)

    def draw(
        self,
        uniforms: Float[Array, "*pixels c"],
        outputs: Float[Array, "*pixels c"],
        temperature: Temperature,
    ) -> Int[Array, "*pixels c"]:
        """Returns the values at uniform numbers, int32."""
        return (uniforms < jax.nn.sigmoid(outputs / temperature)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Softmax(Head):
    """A separate probability for each level (van den Oord et al. 2016a, section 3.1)."""

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return self.channels * self.levels

    def _logits(self, outputs):
        """Reshapes [..., L C], where channel k describes colour k mod C, to [..., C, L]."""
        return jnp.swapaxes(outputs.reshape(*outputs.shape[:-1], self.levels, -1), -1, -2)

    def log_prob(
        self, values: Int[Array, "*pixels c"], outputs: Float[Array, "*pixels o"]
    ) -> Float[Array, "*pixels"]:
        """Computes the log-probability of each pixel, in nats."""
        logs = jax.nn.log_softmax(self._logits(outputs))
        return jnp.sum(jnp.take_along_axis(logs, values[..., None], -1)[..., 0], -1)

    def draw(
        self,
        uniforms: Float[Array, "*pixels c"],
        outputs: Float[Array, "*pixels o"],
        temperature: Temperature,
    ) -> Int[Array, "*pixels c"]:
        """Returns the values at uniform numbers, int32."""
        cumulative = jnp.cumsum(jax.nn.softmax(self._logits(outputs) / temperature), -1)
        return jnp.sum(uniforms[..., None] >= cumulative[..., :-1], -1, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class LogisticMixture(Head):
    """The discretised mixture of logistics, which couples colours: one pass draws a pixel."""

    channelwise = False

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        return logistic_mixture.num_outputs(self.channels, self.components)

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that a pixel needs: one for the component, one for each channel."""
        return 1 + self.channels

    def log_prob(
        self, values: Int[Array, "*pixels c"], outputs: Float[Array, "*pixels o"]
    ) -> Float[Array, "*pixels"]:
        """Computes the log-probability of each pixel, in nats."""
        x = values.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0
        return logistic_mixture.log_prob(x, outputs, self.levels)

    def draw(
        self,
        uniforms: Float[Array, "*pixels u"],
        outputs: Float[Array, "*pixels o"],
        temperature: Temperature,
    ) -> Int[Array, "*pixels c"]:
        """Returns the values at uniform numbers, int32."""
        x = logistic_mixture.from_uniforms(uniforms, outputs, self.levels, temperature)
        return jnp.round((x + 1.0) * ((self.levels - 1) / 2)).astype(jnp.int32)


HEADS = {"bernoulli": Bernoulli, "softmax": Softmax, "logistic_mixture": LogisticMixture}
