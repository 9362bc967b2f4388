"""The residual networks of SNGAN (Miyato et al. 2018, table 4), for 32x32 and other sizes.

The discriminator here is the plain network: spectral normalisation is a function of parameters, in
`genjax.objectives.penalties`.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead, base_size
from genjax.models.layers import Conv, average_pool_2x2, upsample_nearest
from genjax.typing import Array, Float, Shape

_init = nn.initializers.glorot_uniform()
_residual = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


class GeneratorBlock(nn.Module):
    """Norm, ReLU, upsampling, 3x3, norm, ReLU, 3x3; a 1x1 convolution as the shortcut.

    Attributes:
      features: channels of the output.
      norm: () -> a `BatchNorm`.
      dtype: of the computation; parameters are float32.
    """

    features: int
    norm: functools.partial
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None, train: bool
    ) -> Float[Array, "b rows columns features"]:
        """Returns feature maps of twice the sides."""
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        h = upsample_nearest(nn.relu(self.norm()(x, y, train)))
        h = conv((3, 3), kernel_init=_residual)(h)
        h = conv((3, 3), kernel_init=_residual)(nn.relu(self.norm()(h, y, train)))
        # A 1x1 convolution commutes with the upsampling, and costs less before it.
        return h + upsample_nearest(conv((1, 1), kernel_init=_init)(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, perhaps pooling; a 1x1 convolution as the shortcut.

    Attributes:
      features: channels of the output.
      down: whether sides are halved.
      first: whether its input is the images; it then starts without a ReLU.
      dtype: of the computation; parameters are float32.
    """

    features: int
    down: bool
    first: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns features"]:
        """Returns feature maps of the same sides, or of half of them."""
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        h = x if self.first else nn.relu(x)
        h = conv((3, 3), kernel_init=_residual)(h)
        h = conv((3, 3), kernel_init=_residual)(nn.relu(h))
        x = average_pool_2x2(x) if self.down else x
        if self.down or x.shape != h.shape:
            x = conv((1, 1), kernel_init=_init)(x)
        return (average_pool_2x2(h) if self.down else h) + x


class SnganGenerator(nn.Module):
    """A dense layer, blocks that double the sides, batch norm, ReLU, 3x3, tanh.

    Attributes:
      image_shape: (H, W, C); H and W must be multiples of 2 ** len(features).
      features: channels of the blocks; the dense layer has those of the first.
      momentum: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (256, 256, 256)
    momentum: float = 0.9
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns images in [-1, 1], float32, of latents z and labels y."""
        norm = functools.partial(BatchNorm, self.momentum, dtype=self.dtype)
        height, width = base_size(self.image_shape, len(self.features))
        first = self.features[0]
        dense = nn.Dense(height * width * first, kernel_init=_init, dtype=self.dtype)
        h = dense(z.astype(self.dtype)).reshape(-1, height, width, first)
        for features in self.features:
            h = GeneratorBlock(features, norm, self.dtype)(h, y, train)
        h = nn.relu(norm()(h, y, train))
        out = Conv(self.image_shape[-1], (3, 3), kernel_init=_init, dtype=self.dtype)(h)
        return jnp.tanh(out.astype(jnp.float32))


class SnganDiscriminator(nn.Module):
    """Residual blocks, the first two of which halve the sides, ReLU, sum over pixels, one logit.

    Attributes:
      features: channels of the blocks.
      dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...] = (128, 128, 128, 128)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None
    ) -> Float[Array, " b"]:
        """Returns the logits, float32, of images x and labels y."""
        base_size(x.shape[1:], min(2, len(self.features)))
        h = x.astype(self.dtype)
        for i, features in enumerate(self.features):
            h = DiscriminatorBlock(features, down=i < 2, first=i == 0, dtype=self.dtype)(h)
        return ProjectionHead(_init)(jnp.sum(nn.relu(h), axis=(1, 2)), y)
