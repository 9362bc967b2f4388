"""The network of the CIFAR-10 speed run (Jordan 2024, https://arxiv.org/abs/2404.00498).

Its first convolution whitens 2x2 patches and is not trained; each later one starts as the identity
on as many channels as its input has; batch normalisation has biases and no scales; the logits are
divided by the number of features.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.layers import Conv, batch_norm, max_pool
from genjax.typing import AnyArray, Array, Float, Key

# Mean and standard deviation of the training pixels in [0, 1], by channel.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

WHITENING_EPS = 5e-4

# The bounds of PyTorch's default.
_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def normalize(images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Maps pixels in [0, 1] to about zero mean and unit variance on CIFAR-10."""
    return (images - jnp.asarray(CIFAR10_MEAN)) / jnp.asarray(CIFAR10_STD)


def whitening_kernel(
    images: Float[Array, "n h w c"], size: int = 2
) -> Float[Array, "{size} {size} c outputs"]:
    """Computes filters whose outputs on the patches of images are uncorrelated, of variance 1.

    Args:
      images: normalised.
      size: side of a patch.

    Returns:
      Filters with 2 size^2 c outputs: the eigenvectors of the second moments of the patches (about
      0, not about the mean), each divided by the root of its eigenvalue, and then their negatives.
    """
    height, width = images.shape[1] - size + 1, images.shape[2] - size + 1
    windows = [images[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    patches = jnp.stack(windows, axis=-2).reshape(-1, size * size * images.shape[-1])
    moments = jnp.matmul(patches.T, patches, precision=jax.lax.Precision.HIGHEST)
    values, vectors = jnp.linalg.eigh(moments / len(patches))
    filters = vectors[:, ::-1] / jnp.sqrt(values[::-1] + WHITENING_EPS)
    return jnp.concatenate([filters, -filters], 1).reshape(size, size, images.shape[-1], -1)


def identity_first(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "3 3 inputs outputs"]:
    """Draws a kernel of `shape` whose first outputs are its inputs; the rest is random."""
    _, _, channels, _ = shape
    kernel = _init(key, shape, dtype)
    same = jnp.zeros(shape[:3] + (channels,), dtype).at[1, 1].set(jnp.eye(channels, dtype=dtype))
    return kernel.at[..., :channels].set(same)


class ConvGroup(nn.Module):
    """Convolution, pooling, norm, GELU, convolution, norm, GELU.

    Attributes:
      features: channels of both convolutions.
      dtype: of the computation; parameters and statistics are float32.
    """

    features: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool
    ) -> Float[Array, "b rows columns features"]:
        """Returns feature maps of half the sides."""
        for i in range(2):
            conv = Conv(
                self.features,
                (3, 3),
                use_bias=False,
                kernel_init=identity_first,
                dtype=self.dtype,
            )
            x = conv(x)
            x = max_pool(x) if i == 0 else x
            norm = batch_norm(train, momentum=0.6, epsilon=1e-12, use_scale=False, dtype=self.dtype)
            x = nn.gelu(norm(x), approximate=False)
        return x


class Airbench(nn.Module):
    """Whitening, three groups of two convolutions, one output layer without bias.

    Attributes:
      num_classes: K.
      features: channels of the groups.
      dtype: of the computation; parameters and statistics are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (64, 256, 256)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w 3"],
        train: bool = False,
        init_images: Float[AnyArray, "n h w 3"] | None = None,
    ) -> dict[str, Float[Array, "b _"]]:
        """Returns {"features": [B, F], "logits": [B, K]}, float32, of images in [0, 1].

        Args:
          x: images; each group halves their sides.
          train: as in `genjax.models.layers.batch_norm`.
          init_images: what `init` computes the whitening from; None for x.
        """
        first = x if init_images is None else init_images
        kernel = self.variable("whitening", "kernel", lambda: whitening_kernel(normalize(first)))
        bias = self.param("whitening_bias", nn.initializers.zeros, (kernel.value.shape[-1],))
        x = normalize(x).astype(self.dtype)
        x = jax.lax.conv_general_dilated(
            x,
            kernel.value.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = nn.gelu(x + bias.astype(self.dtype), approximate=False)
        for features in self.features:
            x = ConvGroup(features, self.dtype)(x, train)
        x = max_pool(x, x.shape[1]).reshape(x.shape[0], -1)
        head = nn.Dense(
            self.num_classes, use_bias=False, kernel_init=_init, dtype=jnp.float32, name="head"
        )
        logits = head(x) / x.shape[-1]
        return {"features": x.astype(jnp.float32), "logits": logits}
