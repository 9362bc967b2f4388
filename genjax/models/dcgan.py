"""DCGAN (Radford et al. 2016), for any size that halves: 28, 32, 64.

4x4 convolutions of stride 2 in both networks, as in Keras's example. The tutorial's generator ends
at 40x40 while its discriminator takes 64x64; here both have the size of the images.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead, base_size
from genjax.models.layers import Conv, ConvTranspose
from genjax.typing import Array, Float, Shape

_init = nn.initializers.normal(0.02)


class DcganGenerator(nn.Module):
    """A dense layer, 4x4 transposed convolutions of stride 2, batch norm, ReLU; tanh.

    Attributes:
      image_shape: (H, W, C); H and W must be multiples of 2 ** len(features).
      features: channels after the dense layer and after each transposed convolution but the last.
      momentum: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (512, 256, 128, 64)
    momentum: float = 0.9
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns images in [-1, 1], float32, of latents z and labels y."""
        norm = functools.partial(BatchNorm, self.momentum, dtype=self.dtype)
        conv = functools.partial(
            ConvTranspose, kernel_size=(4, 4), strides=2, kernel_init=_init, dtype=self.dtype
        )
        height, width = base_size(self.image_shape, len(self.features))
        first, *rest = self.features
        dense = nn.Dense(
            height * width * first, use_bias=False, kernel_init=_init, dtype=self.dtype
        )
        h = dense(z.astype(self.dtype)).reshape(-1, height, width, first)
        h = nn.relu(norm()(h, y, train))
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
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None
    ) -> Float[Array, " b"]:
        """Returns the logits, float32, of images x and labels y."""
        base_size(x.shape[1:], len(self.features))
        h = x.astype(self.dtype)
        for features in self.features:
            h = Conv(features, (4, 4), strides=2, kernel_init=_init, dtype=self.dtype)(h)
            h = nn.leaky_relu(h, 0.2)
        return ProjectionHead(_init)(h.reshape(len(x), -1), y)
