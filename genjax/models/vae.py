"""Encoder and decoder of the convolutional VAE (Kingma & Welling 2014), in any size.

All pairs of networks of a VAE have these two signatures; `train` matters to those with batch
statistics.
"""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, ConvTranspose
from genjax.typing import Array, Float, Shape


def with_label_planes(
    x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None
) -> Float[Array, "b h w channels"]:
    """Concatenates the label to every pixel: [B, H, W, C + K]; returns x itself without labels."""
    if y is None:
        return x
    planes = jnp.broadcast_to(y[:, None, None, :], (*x.shape[:3], y.shape[-1]))
    return jnp.concatenate([x, planes], axis=-1)


def with_label(h: Float[Array, "b d"], y: Float[Array, "b k"] | None) -> Float[Array, "b features"]:
    """Concatenates labels to features: [B, D + K]; returns h itself without labels."""
    return h if y is None else jnp.concatenate([h, y], axis=-1)


class ConvEncoder(nn.Module):
    """q(z | x): strided convolutions, one dense layer, mean and log-variance.

    Attributes:
      latent_dim: D.
      features: channels of the 3x3, stride 2 convolutions; each halves height and width.
      hidden: units of the dense layer.
      dtype: of the computation; parameters are float32.
    """

    latent_dim: int
    features: tuple[int, ...] = (32, 64)
    hidden: int = 16
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns mean and log-variance, float32, of images x and labels y."""
        h = with_label_planes(x, y).astype(self.dtype)
        for width in self.features:
            h = nn.relu(Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(h))
        h = h.reshape(h.shape[0], -1)
        h = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(h))
        mean = nn.Dense(self.latent_dim, dtype=jnp.float32, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=jnp.float32, name="log_variance")(h)
        return mean, log_variance


class ConvDecoder(nn.Module):
    """p(x | z): a dense layer, strided transposed convolutions, one output convolution.

    Attributes:
      image_shape: (H, W, C of the output); H and W must be multiples of 2 ** len(features).
      features: channels of the 3x3, stride 2 transposed convolutions; each doubles the sides.
      dtype: of the computation; parameters are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (64, 32)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns unbounded outputs (for example logits), float32, of latents z and labels y.

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
        h = nn.relu(h).reshape(-1, height, width, self.features[0])
        for features in self.features:
            h = nn.relu(ConvTranspose(features, (3, 3), strides=(2, 2), dtype=self.dtype)(h))
        return Conv(channels, (3, 3), dtype=jnp.float32)(h)
