"""DCGAN (Radford et al. 2016), for any size that halves: 28, 32, 64.

4x4 convolutions of stride 2 both ways, as Keras's example has them. The tutorial's generator ends
at 40x40 while its discriminator takes 64x64; here one ends where the other begins.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead, base_size
from genjax.models.layers import Conv, ConvTranspose

_init = nn.initializers.normal(0.02)


class DcganGenerator(nn.Module):
    """A dense layer, 4x4 transposed convolutions of stride 2, batch norm, ReLU; tanh.

    Attributes:
      image_shape: (H, W, C); H and W must be multiples of 2 ** len(features).
      features: channels after the dense layer and after each transposed convolution but the last.
      momentum, axis_name: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (512, 256, 128, 64)
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> float32 [B, H, W, C] in [-1, 1]."""
        norm = functools.partial(
            BatchNorm, self.momentum, axis_name=self.axis_name, dtype=self.dtype
        )
        conv = functools.partial(
            ConvTranspose, kernel_size=(4, 4), strides=2, kernel_init=_init, dtype=self.dtype
        )
        height, width = base_size(self.image_shape, len(self.features))
        first, *rest = self.features
        h = nn.Dense(height * width * first, use_bias=False, kernel_init=_init, dtype=self.dtype)(
            z.astype(self.dtype)
        )
        h = nn.relu(norm()(h.reshape(-1, height, width, first), y, train))
        for features in rest:
            h = nn.relu(norm()(conv(features, use_bias=False)(h), y, train))
        return jnp.tanh(conv(self.image_shape[-1])(h).astype(jnp.float32))


class DcganDiscriminator(nn.Module):
    """4x4 convolutions of stride 2, leaky ReLU 0.2; one logit.

    Attributes:
      features: channels of the convolutions; each halves height and width.
      dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...] = (64, 128, 256)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y=None):
        """x [B, H, W, C], y [B, K] or None -> logits float32 [B]."""
        base_size(x.shape[1:], len(self.features))
        h = x.astype(self.dtype)
        for features in self.features:
            h = Conv(features, (4, 4), strides=2, kernel_init=_init, dtype=self.dtype)(h)
            h = nn.leaky_relu(h, 0.2)
        return ProjectionHead(_init)(h.reshape(len(x), -1), y)
