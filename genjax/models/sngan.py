"""The residual networks of SNGAN (Miyato et al. 2018, table 4), for 32x32 and other sizes.

Spectral normalisation is a function of parameters, in `genjax.objectives.penalties`: the
discriminator here is the plain network.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.gan import BatchNorm, ProjectionHead, base_size
from genjax.models.layers import Conv
from genjax.models.unet import double, halve

_init = nn.initializers.glorot_uniform()
_residual = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


class GeneratorBlock(nn.Module):
    """norm, ReLU, twice the sides, 3x3, norm, ReLU, 3x3, beside a 1x1 convolution."""

    features: int
    norm: functools.partial
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y, train):
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        h = double(nn.relu(self.norm()(x, y, train)))
        h = conv((3, 3), kernel_init=_residual)(h)
        h = conv((3, 3), kernel_init=_residual)(nn.relu(self.norm()(h, y, train)))
        # A 1x1 convolution and doubling may change places.
        return h + double(conv((1, 1), kernel_init=_init)(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, perhaps half the sides, beside a 1x1 convolution.

    Attributes:
      features: channels of the output.
      down: whether sides are halved.
      first: whether it is the block of the images, which begins without a ReLU.
    """

    features: int
    down: bool
    first: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        h = x if self.first else nn.relu(x)
        h = conv((3, 3), kernel_init=_residual)(h)
        h = conv((3, 3), kernel_init=_residual)(nn.relu(h))
        x = halve(x) if self.down else x
        if self.down or x.shape != h.shape:
            x = conv((1, 1), kernel_init=_init)(x)
        return (halve(h) if self.down else h) + x


class SnganGenerator(nn.Module):
    """A dense layer, blocks that double the sides, batch norm, ReLU, 3x3, tanh.

    Attributes:
      image_shape: (H, W, C); H and W must be multiples of 2 ** len(features).
      features: channels of the blocks; the dense layer has those of the first.
      momentum, axis_name: of `BatchNorm`.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (256, 256, 256)
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> float32 [B, H, W, C] in [-1, 1]."""
        norm = functools.partial(
            BatchNorm, self.momentum, axis_name=self.axis_name, dtype=self.dtype
        )
        height, width = base_size(self.image_shape, len(self.features))
        first = self.features[0]
        h = nn.Dense(height * width * first, kernel_init=_init, dtype=self.dtype)(
            z.astype(self.dtype)
        ).reshape(-1, height, width, first)
        for features in self.features:
            h = GeneratorBlock(features, norm, self.dtype)(h, y, train)
        h = nn.relu(norm()(h, y, train))
        out = Conv(self.image_shape[-1], (3, 3), kernel_init=_init, dtype=self.dtype)(h)
        return jnp.tanh(out.astype(jnp.float32))


class SnganDiscriminator(nn.Module):
    """Residual blocks, the first two of which halve the sides, ReLU, sum over places, one logit.

    Attributes:
      features: channels of the blocks.
      dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...] = (128, 128, 128, 128)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y=None):
        """x [B, H, W, C], y [B, K] or None -> logits float32 [B]."""
        base_size(x.shape[1:], min(2, len(self.features)))
        h = x.astype(self.dtype)
        for i, features in enumerate(self.features):
            h = DiscriminatorBlock(features, down=i < 2, first=i == 0, dtype=self.dtype)(h)
        return ProjectionHead(_init)(jnp.sum(nn.relu(h), axis=(1, 2)), y)
