"""The tutorial's VAE for 64x64 colour images, with its two mistakes corrected.

The tutorial's encoder yields a 32,768-dimensional code without a distribution, and its decoder ends
at 32x32. Here the encoder yields mean and log-variance, and a fourth transposed convolution, the
output layer, ends at the size of the images.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, ConvTranspose, batch_norm
from genjax.models.vae import with_label, with_label_planes
from genjax.typing import Array, Float, Shape

# Keras's epsilon; Keras's momentum of 0.99 averages over too many steps for a short run.
_norm = functools.partial(batch_norm, momentum=0.9, epsilon=1e-3)


class Conv64Encoder(nn.Module):
    """q(z | x): 4x4 convolutions of stride 2, batch norm, leaky ReLU; mean and log-variance.

    Attributes:
      latent_dim: D.
      features: channels of the convolutions; each halves height and width.
      dtype: of the computation; parameters and statistics are float32.
    """

    latent_dim: int
    features: tuple[int, ...] = (64, 128)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns mean and log-variance, float32, of images x and labels y."""
        h = with_label_planes(x, y).astype(self.dtype)
        for width in self.features:
            h = Conv(width, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
            h = nn.leaky_relu(_norm(train, dtype=self.dtype)(h), 0.2)
        h = h.reshape(h.shape[0], -1)
        mean = nn.Dense(self.latent_dim, dtype=jnp.float32, name="mean")(h)
        log_variance = nn.Dense(self.latent_dim, dtype=jnp.float32, name="log_variance")(h)
        return mean, log_variance


class Conv64Decoder(nn.Module):
    """p(x | z): a dense layer, 4x4 transposed convolutions of stride 2, the last one the output.

    Attributes:
      image_shape: (H, W, C of the output); H and W must be multiples of 2 ** len(features).
      features: channels after the dense layer and after each transposed convolution but the last.
      dtype: of the computation; parameters and statistics are float32.
    """

    image_shape: Shape
    features: tuple[int, ...] = (256, 128, 64, 32)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns unbounded outputs, float32, of latents z and labels y.

        Raises:
          ValueError: a side of `image_shape` that cannot be halved so often.
        """
        norm = functools.partial(_norm, train, dtype=self.dtype)
        conv = functools.partial(ConvTranspose, kernel_size=(4, 4), strides=(2, 2))
        height, width, channels = self.image_shape
        factor = 2 ** len(self.features)
        if height % factor or width % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        height, width = height // factor, width // factor
        h = with_label(z, y).astype(self.dtype)
        h = nn.Dense(height * width * self.features[0], dtype=self.dtype)(h)
        h = nn.leaky_relu(norm()(h.reshape(-1, height, width, self.features[0])), 0.2)
        for features in self.features[1:]:
            h = nn.leaky_relu(norm()(conv(features, dtype=self.dtype)(h)), 0.2)
        return conv(channels, dtype=jnp.float32)(h)
