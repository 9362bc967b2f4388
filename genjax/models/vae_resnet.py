"""Residual convolutional encoder and decoder of a VAE: pre-activation blocks with group norm."""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, upsample_nearest
from genjax.models.vae import with_label, with_label_planes
from genjax.typing import Array, Float, Shape

_zeros = nn.initializers.zeros_init()


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3x3 convolutions, each after group norm and SiLU; f starts at 0.

    Attributes:
      dtype: of the computation; parameters are float32.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns feature maps of the shape of x."""
        features = x.shape[-1]
        groups = next(g for g in (8, 4, 2, 1) if features % g == 0)
        h = nn.silu(nn.GroupNorm(groups, dtype=self.dtype)(x))
        h = Conv(features, (3, 3), dtype=self.dtype)(h)
        h = nn.silu(nn.GroupNorm(groups, dtype=self.dtype)(h))
        return x + Conv(features, (3, 3), kernel_init=_zeros, dtype=self.dtype)(h)


class ResNetEncoder(nn.Module):
    """q(z | x): a stage of residual blocks at each size, one dense layer for each output.

    Attributes:
      latent_dim: D.
      features: channels of the stages; each starts by halving height and width.
      blocks: residual blocks of each stage.
      dtype: of the computation; parameters are float32.
    """

    latent_dim: int
    features: tuple[int, ...] = (64, 128)
    blocks: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns mean and log-variance, float32, of images x and labels y."""
        h = with_label_planes(x, y).astype(self.dtype)
        for width in self.features:
            h = Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(h)
            for _ in range(self.blocks):
                h = ResidualBlock(self.dtype)(h)
        h = nn.silu(h).reshape(h.shape[0], -1)
        mean = nn.Dense(self.latent_dim, dtype=jnp.float32, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=jnp.float32, name="log_variance")(h)
        return mean, log_variance


class ResNetDecoder(nn.Module):
    """p(x | z): the mirror image of the encoder.

    Attributes:
      image_shape: (H, W, C of the output); H and W must be multiples of 2 ** len(features).
      features: channels of the stages; each ends by doubling height and width.
      blocks: residual blocks of each stage.
      dtype: of the computation; parameters are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (128, 64)
    blocks: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns unbounded outputs, float32, of latents z and labels y.

        Raises:
          ValueError: a side of `image_shape` that cannot be halved so often.
        """
        height, width, channels = self.image_shape
        factor = 2 ** len(self.features)
        if height % factor or width % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        height, width = height // factor, width // factor
        h = with_label(z, y).astype(self.dtype)
        h = nn.Dense(height * width * self.features[0], dtype=self.dtype)(h)
        h = h.reshape(-1, height, width, self.features[0])
        for features in self.features:
            h = Conv(features, (3, 3), dtype=self.dtype)(h)
            for _ in range(self.blocks):
                h = ResidualBlock(self.dtype)(h)
            h = upsample_nearest(h)
        return Conv(channels, (3, 3), dtype=jnp.float32)(nn.silu(h))
