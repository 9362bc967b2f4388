"""The tutorial's VAE for 64x64 colour pictures, as it was meant.

There the encoder yields a 32,768-dimensional code without a distribution and the decoder ends at
32x32. Here the encoder yields mean and log-variance, and a fourth transposed convolution, the
output layer, ends at the image's size.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, ConvTranspose
from genjax.models.vae import with_label, with_label_planes


def _norm(train, axis_name, dtype):
    # Keras's constants, but that 0.99 remembers too long for a short run.
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-3,
        axis_name=axis_name if train else None,
        dtype=dtype,
    )


class Conv64Encoder(nn.Module):
    """q(z | x): 4x4 convolutions of stride 2, batch norm, leaky ReLU; mean and log-variance.

    Attributes:
      latent_dim: D.
      features: channels of the convolutions; each halves height and width.
      axis_name: of the devices under pmap, to share batch statistics; None under jit.
      dtype: of the computation; parameters and statistics are float32.
    """

    latent_dim: int
    features: tuple[int, ...] = (64, 128)
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y=None, train=False):
        """x [B, H, W, C], labels y [B, K] or None -> mean, log_variance, each float32 [B, D]."""
        norm = _norm(train, self.axis_name, self.dtype)
        h = with_label_planes(x, y).astype(self.dtype)
        for width in self.features:
            h = Conv(width, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
            h = nn.leaky_relu(norm()(h), 0.2)
        h = h.reshape(h.shape[0], -1)
        mean = nn.Dense(self.latent_dim, dtype=self.dtype, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=self.dtype, name="log_variance")(h)
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)


class Conv64Decoder(nn.Module):
    """p(x | z): a dense layer, 4x4 transposed convolutions of stride 2, the last one the output.

    Attributes:
      image_shape: (H, W, C of the output); H and W must be multiples of 2 ** len(features).
      features: channels after the dense layer and after each transposed convolution but the last.
      axis_name: of the devices under pmap, to share batch statistics; None under jit.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (256, 128, 64, 32)
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> outputs float32 [B, H, W, C], unbounded."""
        norm = _norm(train, self.axis_name, self.dtype)
        height, width, channels = self.image_shape
        factor = 2 ** len(self.features)
        if height % factor or width % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        height, width = height // factor, width // factor
        h = with_label(z, y).astype(self.dtype)
        h = nn.Dense(height * width * self.features[0], dtype=self.dtype)(h)
        h = nn.leaky_relu(norm()(h.reshape(-1, height, width, self.features[0])), 0.2)
        for features in self.features[1:]:
            h = ConvTranspose(features, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
            h = nn.leaky_relu(norm()(h), 0.2)
        out = ConvTranspose(channels, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
        return out.astype(jnp.float32)
