"""Invertible layers of normalizing flows; what their networks have in common.

A layer is a module (x, ..., reverse) -> (y, log|det dy/dx|), its inverse with `reverse`; the
log-determinant is a scalar where it is the same for every example, else [B]. A network maps images
to standard normal latents,

  __call__(x [B, H, W, C], label)  -> (latents, log_det [B])
  inverse(latents, label)          -> x [B, H, W, C]
  latent_shapes((H, W, C))         -> a shape for each latent, the finest scale first

such that log p(x) = log N(latents; 0, 1) + log_det, with learnt means and deviations of a prior as
part of the map. Invertible arithmetic is float32; `dtype` is that of the networks inside of
couplings. Matrices ask for the highest precision.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax.devices import platform
from genjax.models.layers import Conv, Dense, pointwise, prefers_matmul
from genjax.typing import Array, Float, Int, Key, Num, Shape

# Parameters of log-scales are multiplied by it, as if their learning rate were higher
# (Kingma & Dhariwal 2018, their code).
LOG_SCALE_RATE = 3.0

_zeros = nn.initializers.zeros_init()


# ---- Reshaping and masks ----


def squeeze(x: Num[Array, "b h w c"]) -> Num[Array, "b rows columns four_c"]:
    """Turns squares of 2x2 pixels into one pixel with 4 times the channels.

    Raises:
      ValueError: odd sides.
    """
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"{height}x{width} has no squares of 2x2 pixels")
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def unsqueeze(x: Num[Array, "b h w four_c"]) -> Num[Array, "b rows columns c"]:
    """Inverts `squeeze`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def squeezed_shape(shape: Shape) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of an image after `squeeze`."""
    height, width, channels = shape
    return height // 2, width // 2, 4 * channels


def checkerboard(height: int, width: int, odd: bool) -> Float[np.ndarray, "h w 1"]:
    """Returns 1 where row + column is even, or where it is odd; else 0."""
    parity = np.add.outer(np.arange(height), np.arange(width)) % 2
    return (parity == odd).astype(np.float32)[..., None]


def half_of_channels(channels: int, odd: bool) -> Float[np.ndarray, " c"]:
    """Returns 1 for the first half of the channels, or for the second; else 0."""
    return ((np.arange(channels) >= channels // 2) == odd).astype(np.float32)


# ---- Densities and classes ----


def log_standard_normal(z: Float[Array, "b *shape"]) -> Float[Array, " b"]:
    """Computes log N(z; 0, 1), summed over everything but the batch."""
    squares = jnp.sum(z.reshape(len(z), -1) ** 2, axis=1)
    return -0.5 * (squares + math.log(2 * math.pi) * (z.size // len(z)))


def class_weights(labels: Int[Array, " b"], num_classes: int) -> Float[Array, "b k"]:
    """Returns one-hot labels; a label of -1, no class, is the mean of all classes."""
    return jnp.where(labels[:, None] < 0, 1 / num_classes, jax.nn.one_hot(labels, num_classes))


def per_example(x: Float[Array, "b *shape"]) -> Float[Array, " b"]:
    """Sums over everything but the batch."""
    return jnp.sum(x.reshape(len(x), -1), axis=1)


def scan_unroll(length: int) -> int:
    """Returns how many layers of a scan are compiled one after another: on a CPU all.

    XLA:CPU computes convolutions slowly inside of loops: value and gradient of two steps of Glow
    with 64 channels, 64 images of 28x28, 7.2 s in a loop, 0.25 s without one (2 cores, beside other
    work, JAX 0.12.0). On accelerators a loop compiles faster.
    """
    return length if platform() == "cpu" else 1


# ---- Layers ----


class ActNorm(nn.Module):
    """(x + bias) exp(log_scale) for each channel (Kingma & Dhariwal 2018).

    Initialised so that the channels of the inputs that `init` is given have mean 0, deviation 1.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "*shape c"], reverse: bool = False
    ) -> tuple[Float[Array, "*shape c"], Float[Array, ""]]:
        """Returns the normalised channels, or what they are of, and the log-determinant."""
        axes = tuple(range(x.ndim - 1))
        std = lambda: jnp.maximum(jnp.std(x, axes), 1e-3)
        bias = self.param("bias", lambda key: -jnp.mean(x, axes))
        log_scale = self.param("log_scale", lambda key: -jnp.log(std()) / LOG_SCALE_RATE)
        log_scale *= LOG_SCALE_RATE
        log_det = math.prod(x.shape[1:-1]) * jnp.sum(log_scale)
        if reverse:
            return x * jnp.exp(-log_scale) - bias, -log_det
        return (x + bias) * jnp.exp(log_scale), log_det


def _random_lu(key: Key[Array, ""], size: int) -> Float[Array, "c c"]:
    """Draws L and U of an orthogonal matrix L U: L below the diagonal, log of U's on it."""
    _, lower, upper = jax.scipy.linalg.lu(jax.random.orthogonal(key, size))
    sign = jnp.sign(jnp.diag(upper))
    lower, upper = sign[:, None] * lower * sign, sign[:, None] * upper
    return jnp.tril(lower, -1) + jnp.triu(upper, 1) + jnp.diag(jnp.log(jnp.diag(upper)))


class ChannelMix(nn.Module):
    """An invertible 1x1 convolution y = x L U (Kingma & Dhariwal 2018, section 3.2).

    L has ones on its diagonal, U a positive one, both in the parameter `lu`. The fixed permutation
    and signs of the paper's P L U are left out: they rename the channels of a random matrix. It is
    orthogonal at first.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], reverse: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        """Returns the mixed channels, or what they are of, and the log-determinant."""
        channels = x.shape[-1]
        lu = self.param("lu", _random_lu, channels)
        log_diagonal = jnp.diag(lu)
        lower = jnp.tril(lu, -1) + jnp.eye(channels)
        upper = jnp.triu(lu, 1) + jnp.diag(jnp.exp(log_diagonal))
        log_det = x.shape[1] * x.shape[2] * jnp.sum(log_diagonal)
        if reverse:
            solve = jax.scipy.linalg.solve_triangular
            inverse = solve(upper, solve(lower, jnp.eye(channels), lower=True))
            return _mix(x, inverse), -log_det
        return _mix(x, jnp.matmul(lower, upper, precision="highest")), log_det


def _mix(x, matrix):
    return pointwise(x, matrix) if prefers_matmul(x) else jnp.dot(x, matrix, precision="highest")


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at 0, with a learnt scale for each channel; float32.

    Attributes:
      features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Num[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        """Returns the scaled convolution."""
        y = Conv(self.features, (3, 3), kernel_init=_zeros, name="conv")(x.astype(jnp.float32))
        log_scale = self.param("log_scale", _zeros, (self.features,))
        return y * jnp.exp(LOG_SCALE_RATE * log_scale)


class ResidualNet(nn.Module):
    """A residual network of 3x3 convolutions whose outputs start at 0; they are float32.

    Attributes:
      outputs: number of output channels.
      features: channels inside.
      blocks: of two convolutions.
      dtype: of the computation.
    """

    outputs: int
    features: int
    blocks: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], classes: Float[Array, "b k"] | None = None
    ) -> Float[Array, "b h w o"]:
        """Returns the outputs for x and weights of classes."""
        conv = lambda name, **options: Conv(
            self.features, (3, 3), dtype=self.dtype, name=name, **options
        )
        h = conv("first")(x.astype(self.dtype))
        if classes is not None:
            h += Dense(self.features, use_bias=False, dtype=self.dtype, name="classes")(
                classes.astype(self.dtype)
            )[:, None, None]
        for i in range(self.blocks):
            inner = nn.relu(conv(f"block{i}_0")(nn.relu(h)))
            h += conv(f"block{i}_1", kernel_init=_zeros)(inner)
        last = Conv(self.outputs, (1, 1), kernel_init=_zeros, name="last")
        return last(nn.relu(h).astype(jnp.float32))


class MaskedCoupling(nn.Module):
    """An affine coupling (Dinh et al. 2017): x m + (1 - m) (x exp(s(x m)) + t(x m)).

    Attributes:
      checker: whether m is a checkerboard; else it is half of the channels.
      odd: which of the two.
      features, blocks: of the residual network of s and t.
      dtype: of that network.
    """

    checker: bool
    odd: bool
    features: int
    blocks: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        classes: Float[Array, "b k"] | None = None,
        reverse: bool = False,
        context: Float[Array, "b h w k2"] | None = None,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Returns the transformed x, or what it is of, and the log-determinant."""
        _, height, width, channels = x.shape
        mask = half_of_channels(channels, self.odd)
        if self.checker:
            mask = checkerboard(height, width, self.odd)
        inputs = x * mask if context is None else jnp.concatenate([x * mask, context], -1)
        network = ResidualNet(2 * channels, self.features, self.blocks, self.dtype, name="network")
        shift, log_scale = jnp.split(network(inputs, classes), 2, axis=-1)
        bound = self.param("bound", nn.initializers.ones_init(), (channels,))
        log_scale = bound * jnp.tanh(log_scale) * (1 - mask)
        shift *= 1 - mask
        if reverse:
            return (x - shift) * jnp.exp(-log_scale), -per_example(log_scale)
        return x * jnp.exp(log_scale) + shift, per_example(log_scale)
