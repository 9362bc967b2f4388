"""The GAN of dense layers of the tutorial (Goodfellow et al. 2014, with batch norm).

The tutorial trains the discriminator on images of running averages and the generator on images of
batch statistics, which differ by a factor of three in their spread; here both are trained on the
latter.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead
from genjax.typing import Array, Float, Shape

_init = nn.initializers.glorot_uniform()


class MlpGenerator(nn.Module):
    """Dense layers, each with leaky ReLU 0.2 and batch norm; a last dense layer, tanh.

    Attributes:
      image_shape: (H, W, C).
      features: units of the hidden layers.
      momentum: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (256, 512, 1024)
    momentum: float = 0.8
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns images in [-1, 1], float32, of latents z and labels y."""
        h = z.astype(self.dtype)
        for width in self.features:
            h = nn.leaky_relu(nn.Dense(width, kernel_init=_init, dtype=self.dtype)(h), 0.2)
            h = BatchNorm(self.momentum, 1e-3, self.dtype)(h, y, train)
        h = nn.Dense(math.prod(self.image_shape), kernel_init=_init, dtype=self.dtype)(h)
        return jnp.tanh(h.astype(jnp.float32)).reshape(-1, *self.image_shape)


class MlpDiscriminator(nn.Module):
    """Dense layers, each with leaky ReLU 0.2; one logit.

    Attributes:
      features: units of the hidden layers.
      dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...] = (512, 256)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None
    ) -> Float[Array, " b"]:
        """Returns the logits, float32, of images x and labels y."""
        h = x.reshape(len(x), -1).astype(self.dtype)
        for width in self.features:
            h = nn.leaky_relu(nn.Dense(width, kernel_init=_init, dtype=self.dtype)(h), 0.2)
        return ProjectionHead(_init)(h, y)
