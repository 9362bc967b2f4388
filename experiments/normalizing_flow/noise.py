"""Pixels as a density takes them: integers with noise.

A density of integers would be unbounded. With noise u in [0, 1) of a distribution q(u | x),

  log P(x) >= E_q [log p(x + u) - log q(u | x)],

uniform q: Theis et al. 2016, section 3.1; learnt q: Ho et al. 2019, section 3.1. Normal noise
(Zhai et al. 2024, section 2.3) gives the density of noisy images; it bounds nothing.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.models.flows import per_example
from genjax.typing import Array, Float, Key, Params, Shape

NOISES = ("uniform", "variational", "gaussian")

LEVELS = 256


@dataclasses.dataclass(frozen=True)
class Dequantization:
    """Noise in [0, 1) of one grey level, then the units of a flow.

    Attributes:
      network: of q(u | x), such as `genjax.models.realnvp.VariationalNoise`; None: uniform.
      logit: alpha of y = logit(alpha + (1 - 2 alpha) x), x in [0, 1] (Dinh et al. 2017, section
        4.1, made symmetric); 0: y = 2 x - 1.
    """

    network: nn.Module | None = None
    logit: float = 0.0

    bounds_pixels = True

    def init(self, key: Key[Array, ""], image_shape: Shape) -> Params:
        """Returns parameters of q, {} if it has none."""
        if self.network is None:
            return {}
        zeros = jnp.zeros((1, *image_shape))
        return self.network.init(key, zeros, zeros)["params"]

    def add(
        self, params: Params, images: Float[Array, "b h w c"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Adds noise to images in [0, 1].

        Returns:
          (y, nats that the noise and the units cost: -log P(x) <= -log p(y) + nats).
        """
        values = jnp.round(images * (LEVELS - 1))
        if self.network is None:
            u, nats = rng.uniform(keys, images.shape[1:]), jnp.zeros(len(images))
        else:
            noise = rng.normal(keys, images.shape[1:])
            u, nats = self.network.apply({"params": params}, noise, 2 * images - 1)
        y, log_det = self._to_y((values + u) / LEVELS)
        dims = images.size // len(images)
        return y, nats - log_det + dims * math.log(LEVELS)

    def _to_y(self, x):
        """Returns y of x in [0, 1], and log|det dy/dx|."""
        if not self.logit:
            return 2 * x - 1, jnp.full(len(x), math.log(2) * (x.size // len(x)))
        p = self.logit + (1 - 2 * self.logit) * x
        log_p, log_rest = jnp.log(p), jnp.log1p(-p)
        return log_p - log_rest, per_example(math.log(1 - 2 * self.logit) - log_p - log_rest)

    def images(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns the images in [0, 1], of 256 levels, whose noisy pixels are y."""
        x = (y + 1) / 2
        if self.logit:
            x = (jax.nn.sigmoid(y) - self.logit) / (1 - 2 * self.logit)
        return jnp.clip(jnp.floor(LEVELS * x), 0, LEVELS - 1) / (LEVELS - 1)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Normal noise on images in [-1, 1], which samples have, too.

    Attributes:
      std: its deviation.
    """

    std: float = 0.05

    bounds_pixels = False

    def init(self, key: Key[Array, ""], image_shape: Shape) -> Params:
        """Returns {}: it has no parameters."""
        return {}

    def add(
        self, params: Params, images: Float[Array, "b h w c"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Returns noisy images in about [-1, 1] and zeros, see `Dequantization.add`."""
        y = 2 * images - 1 + self.std * rng.normal(keys, images.shape[1:])
        return y, jnp.zeros(len(images))

    def images(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns images in [0, 1]."""
        return jnp.clip((y + 1) / 2, 0.0, 1.0)
