"""The GAN of dense layers, as the tutorial has it (Goodfellow et al. 2014, and batch norm).

There the discriminator is trained on images of running averages and the generator on images of
batch statistics, which differ by a factor of three in their spread; here both see the latter.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead

_init = nn.initializers.glorot_uniform()


class MlpGenerator(nn.Module):
    """Dense, leaky ReLU 0.2, batch norm, and again; dense, tanh.

    Attributes:
      image_shape: (H, W, C).
      features: units of the hidden layers.
      momentum, axis_name: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (256, 512, 1024)
    momentum: float = 0.8
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> float32 [B, H, W, C] in [-1, 1]."""
        h = z.astype(self.dtype)
        for width in self.features:
            h = nn.leaky_relu(nn.Dense(width, kernel_init=_init, dtype=self.dtype)(h), 0.2)
            h = BatchNorm(self.momentum, 1e-3, self.axis_name, self.dtype)(h, y, train)
        h = nn.Dense(math.prod(self.image_shape), kernel_init=_init, dtype=self.dtype)(h)
        return jnp.tanh(h.astype(jnp.float32)).reshape(-1, *self.image_shape)


class MlpDiscriminator(nn.Module):
    """Dense, leaky ReLU 0.2, and again; one logit.

    Attributes:
      features: units of the hidden layers.
      dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...] = (512, 256)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y=None):
        """x [B, H, W, C], y [B, K] or None -> logits float32 [B]."""
        h = x.reshape(len(x), -1).astype(self.dtype)
        for width in self.features:
            h = nn.leaky_relu(nn.Dense(width, kernel_init=_init, dtype=self.dtype)(h), 0.2)
        return ProjectionHead(_init)(h, y)
