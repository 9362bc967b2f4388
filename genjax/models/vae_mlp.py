"""Encoder and decoder of the VAE of dense layers (Kingma & Welling 2014; Burda et al. 2016)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.vae import with_label
from genjax.typing import Array, Float, Shape

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh}


class MlpEncoder(nn.Module):
    """q(z | x): dense layers, mean and log-variance.

    Attributes:
      latent_dim: D.
      features: units of the hidden layers.
      activation: a name in `ACTIVATIONS`.
      dtype: of the computation; parameters are float32.
    """

    latent_dim: int
    features: tuple[int, ...] = (500,)
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns mean and log-variance, float32, of images x and labels y."""
        h = with_label(x.reshape(x.shape[0], -1), y).astype(self.dtype)
        for width in self.features:
            h = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype)(h))
        mean = nn.Dense(self.latent_dim, dtype=jnp.float32, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=jnp.float32, name="log_variance")(h)
        return mean, log_variance


class MlpDecoder(nn.Module):
    """p(x | z): dense layers.

    Attributes:
      image_shape: (H, W, C of the output).
      features: units of the hidden layers.
      activation: a name in `ACTIVATIONS`.
      dtype: of the computation; parameters are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (500,)
    activation: str = "relu"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns unbounded outputs, float32, of latents z and labels y."""
        h = with_label(z, y).astype(self.dtype)
        for width in self.features:
            h = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype)(h))
        h = nn.Dense(math.prod(self.image_shape), dtype=jnp.float32)(h)
        return h.reshape(-1, *self.image_shape)
