"""Encoder and decoder of the convolutional VAE (Kingma & Welling 2014), in the sizes asked for.

Every pair of networks of a VAE has these two signatures; `train` is for those with batch
statistics.
"""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, ConvTranspose


def with_label_planes(x, y):
    """Puts a label next to every pixel: x [B, H, W, C], y [B, K] or None -> [B, H, W, C + K]."""
    if y is None:
        return x
    planes = jnp.broadcast_to(y[:, None, None, :], (*x.shape[:3], y.shape[-1]))
    return jnp.concatenate([x, planes], axis=-1)


def with_label(h, y):
    """h [B, D], y [B, K] or None -> [B, D + K]."""
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
    def __call__(self, x, y=None, train=False):
        """x [B, H, W, C], labels y [B, K] or None -> mean, log_variance, each float32 [B, D]."""
        h = with_label_planes(x, y).astype(self.dtype)
        for width in self.features:
            h = nn.relu(Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(h))
        h = h.reshape(h.shape[0], -1)
        h = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(h))
        mean = nn.Dense(self.latent_dim, dtype=self.dtype, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=self.dtype, name="log_variance")(h)
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)


class ConvDecoder(nn.Module):
    """p(x | z): a dense layer, strided transposed convolutions, one output convolution.

    Attributes:
      image_shape: (H, W, C of the output); H and W must be multiples of 2 ** len(features).
      features: channels of the 3x3, stride 2 transposed convolutions; each doubles the sides.
      dtype: of the computation; parameters are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (64, 32)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> outputs float32 [B, H, W, C], unbounded (say, logits)."""
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
        return Conv(channels, (3, 3), dtype=self.dtype)(h).astype(jnp.float32)
