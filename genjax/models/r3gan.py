"""The networks of R3GAN (Huang et al. 2024, https://arxiv.org/abs/2501.05441): no norm, no style.

Both players are the same ResNeXt turned round: stages of residual blocks, 1x1 up, grouped 3x3, 1x1
down, leaky ReLU, with Fixup's initialisation (Zhang et al. 2019). Here sides are doubled bilinearly
and halved by means, where the paper's code filters with (1, 2, 1).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.gan import base_size
from genjax.models.layers import Conv
from genjax.models.unet import halve

_GAIN = 2 / (1 + 0.2**2)  # of leaky ReLU 0.2 (He et al. 2015)
_linear = nn.initializers.lecun_normal()


def _scaled(blocks):
    """Fixup: of three convolutions, the first two smaller by (number of blocks) ** -1/4."""
    return nn.initializers.variance_scaling(_GAIN / blocks**0.5, "fan_in", "normal")


class Block(nn.Module):
    """x + conv1x1(act(grouped 3x3(act(conv1x1(x))))), the last convolution 0 at first.

    Attributes:
      expansion: channels inside, over those outside.
      group: channels of each group of the 3x3 convolution, at most.
      blocks: of the whole network, for the initialisation.
    """

    expansion: int
    group: int
    blocks: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        outside = x.shape[-1]
        inside = outside * self.expansion
        init = _scaled(self.blocks)
        h = Conv(inside, (1, 1), use_bias=False, kernel_init=init, dtype=self.dtype)(x)
        h = nn.leaky_relu(h + self._bias("bias1", inside), 0.2)
        groups = max(1, inside // self.group)
        h = nn.Conv(
            inside,
            (3, 3),
            feature_group_count=groups if inside % groups == 0 else 1,
            use_bias=False,
            kernel_init=init,
            dtype=self.dtype,
        )(h)
        h = nn.leaky_relu(h + self._bias("bias2", inside), 0.2)
        zero = nn.initializers.zeros
        return x + Conv(outside, (1, 1), use_bias=False, kernel_init=zero, dtype=self.dtype)(h)

    def _bias(self, name, size):
        return self.param(name, nn.initializers.zeros, (size,)).astype(self.dtype)


def _stages(player, h, resize):
    """All blocks of a player, [B, H, W, C] -> [B, H', W', C']; inside of its compact method.

    `resize`: (h, channels of the next stage) -> what that stage begins with.
    """
    blocks = player.blocks * len(player.features)
    for stage, features in enumerate(player.features):
        h = resize(h, features) if stage else h
        for _ in range(player.blocks):
            h = Block(player.expansion, player.group, blocks, player.dtype)(h)
    return h


def _widened(h, features):
    """`h` with so many channels."""
    if features == h.shape[-1]:
        return h
    return Conv(features, (1, 1), use_bias=False, dtype=h.dtype)(h)


def _double(h):
    """Twice the sides, bilinearly."""
    batch, height, width, channels = h.shape
    return jax.image.resize(h, (batch, 2 * height, 2 * width, channels), "bilinear")


class R3ganGenerator(nn.Module):
    """A learned basis weighted by z, then stages of blocks, each but the first of twice the sides.

    Attributes:
      image_shape: (H, W, C); H and W must be multiples of 2 ** (len(features) - 1).
      features: channels of each stage.
      blocks: in each stage.
      expansion, group: of a `Block`.
      dtype: of the computation; parameters are float32.
    """

    image_shape: tuple[int, int, int]
    features: tuple[int, ...] = (256, 256, 256, 256)
    blocks: int = 2
    expansion: int = 2
    group: int = 16
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z, y=None, train=False):
        """z [B, D], y [B, K] or None -> float32 [B, H, W, C]; in [-1, 1] once it has learned to."""
        height, width = base_size(self.image_shape, len(self.features) - 1)
        z = z.astype(self.dtype)
        if y is not None:
            embedded = nn.Dense(z.shape[-1], use_bias=False, dtype=self.dtype, name="embedding")(y)
            z = jnp.concatenate([z, embedded * y.shape[-1] ** 0.5], axis=-1)
        first = self.features[0]
        basis = self.param("basis", nn.initializers.normal(1.0), (height, width, first))
        weights = nn.Dense(first, use_bias=False, kernel_init=_linear, dtype=self.dtype)(z)
        h = basis.astype(self.dtype) * weights[:, None, None]
        h = _stages(self, h, lambda h, features: _double(_widened(h, features)))
        channels = self.image_shape[-1]
        return Conv(channels, (1, 1), use_bias=False, dtype=self.dtype)(h).astype(jnp.float32)


class R3ganDiscriminator(nn.Module):
    """Stages of blocks, each but the first of half the sides; a learned basis, one logit.

    Attributes:
      features: channels of each stage, the first at the image's own size.
      blocks, expansion, group, dtype: as of the generator.
    """

    features: tuple[int, ...] = (256, 256, 256, 256)
    blocks: int = 2
    expansion: int = 2
    group: int = 16
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, y=None):
        """x [B, H, W, C], y [B, K] or None -> logits float32 [B]."""
        base_size(x.shape[1:], len(self.features) - 1)
        first = self.features[0]
        h = Conv(first, (1, 1), use_bias=False, dtype=self.dtype)(x.astype(self.dtype))
        h = _stages(self, h, lambda h, features: _widened(halve(h), features))
        _, height, width, channels = h.shape
        scale = nn.initializers.normal((height * width) ** -0.5)
        basis = self.param("basis", scale, (height, width, channels))
        h = jnp.sum(h.astype(jnp.float32) * basis, axis=(1, 2))
        if y is None:
            return nn.Dense(1, use_bias=False, kernel_init=_linear)(h)[:, 0]
        h = nn.Dense(channels, use_bias=False, kernel_init=_linear)(h)
        embedded = nn.Dense(channels, use_bias=False, name="embedding")(y)
        return jnp.sum(h * embedded, axis=-1) * (y.shape[-1] / channels) ** 0.5
