"""The network of the CIFAR-10 speed run (Jordan 2024, https://arxiv.org/abs/2404.00498).

Its first convolution whitens 2x2 patches and is not trained; each later one begins as the identity
on as many channels as come in; batch normalisation has biases and no scales; the logits are
divided by the number of features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.layers import Conv, max_pool

# Mean and standard deviation of the training pixels in [0, 1], by channel.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

WHITENING_EPS = 5e-4


def normalize(images):
    """float [B, H, W, 3] in [0, 1] -> about zero mean and unit variance on CIFAR-10."""
    return (images - jnp.asarray(CIFAR10_MEAN)) / jnp.asarray(CIFAR10_STD)


def whitening_kernel(images, size=2):
    """Filters that turn the patches of some images into uncorrelated numbers of variance 1.

    Args:
      images: [N, H, W, C], normalised.
      size: side of a patch.

    Returns:
      [size, size, C, 2 size^2 C]: the eigenvectors of the patches' covariance (about 0, not about
      the mean), each over the root of its eigenvalue, and then their negatives.
    """
    height, width = images.shape[1] - size + 1, images.shape[2] - size + 1
    windows = [images[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    patches = jnp.stack(windows, axis=-2).reshape(-1, size * size * images.shape[-1])
    values, vectors = jnp.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors[:, ::-1] / jnp.sqrt(values[::-1] + WHITENING_EPS)
    return jnp.concatenate([filters, -filters], 1).reshape(size, size, images.shape[-1], -1)


def identity_first(key, shape, dtype=jnp.float32):
    """A kernel [3, 3, in, out] whose first `in` outputs are the inputs; the rest is random."""
    _, _, channels, _ = shape
    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    same = jnp.zeros(shape[:3] + (channels,), dtype).at[1, 1].set(jnp.eye(channels, dtype=dtype))
    return kernel.at[..., :channels].set(same)


class ConvGroup(nn.Module):
    """Convolution, pooling, convolution, each but the pooling with normalisation and GELU."""

    features: int
    axis_name: str | None
    dtype: str

    @nn.compact
    def __call__(self, x, train):
        for i in range(2):
            x = Conv(
                self.features,
                (3, 3),
                use_bias=False,
                kernel_init=identity_first,
                dtype=self.dtype,
            )(x)
            x = max_pool(x) if i == 0 else x
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.6,
                epsilon=1e-12,
                use_scale=False,
                axis_name=self.axis_name if train else None,
                dtype=self.dtype,
            )
            x = nn.gelu(norm(x), approximate=False)
        return x


class Airbench(nn.Module):
    """Whitening, three groups of two convolutions, one output layer without bias.

    Attributes:
      num_classes: K.
      features: channels of the groups.
      axis_name: of the devices under pmap, to share batch statistics; None under jit.
      dtype: of the computation; parameters and statistics are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (64, 256, 256)
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train=False, init_images=None):
        """x [B, 32, 32, 3] in [0, 1] -> {"features": [B, F], "logits": [B, K]}, float32.

        `init_images`, [N, 32, 32, 3] in [0, 1], are what `init` takes the whitening from.
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
            x = ConvGroup(features, self.axis_name, self.dtype)(x, train)
        x = max_pool(x, x.shape[1]).reshape(x.shape[0], -1)
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        head = nn.Dense(
            self.num_classes, use_bias=False, kernel_init=init, dtype=self.dtype, name="head"
        )
        logits = head(x).astype(jnp.float32) / x.shape[-1]
        return {"features": x.astype(jnp.float32), "logits": logits}
