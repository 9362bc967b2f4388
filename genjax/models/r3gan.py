"""The networks of R3GAN (Huang et al. 2024, https://arxiv.org/abs/2501.05441): no norm, no style.

Generator and discriminator are mirrored ResNeXts: stages of residual blocks, 1x1 up, grouped 3x3,
1x1 down, leaky ReLU, with Fixup's initialisation (Zhang et al. 2019). Here sides are doubled
bilinearly and halved by means, where the paper's code filters with (1, 2, 1).

In bfloat16 the paper's code keeps the stage of the lowest resolution in float32 (`float32_stages`
of 1); gradients of biases are summed in float32. Parameters, logits and images are float32 always.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.gan import base_size
from genjax.models.layers import Conv, average_pool_2x2
from genjax.typing import Array, Float, Shape

_GAIN = 2 / (1 + 0.2**2)  # of leaky ReLU 0.2 (He et al. 2015)
_linear = nn.initializers.lecun_normal()
_zeros = nn.initializers.zeros


def _fixup(blocks):
    """Scales the first two convolutions of a block down by (number of blocks) ** -1/4."""
    return nn.initializers.variance_scaling(_GAIN / blocks**0.5, "fan_in", "normal")


class Block(nn.Module):
    """x + conv1x1(act(grouped 3x3(act(conv1x1(x))))), where the last convolution starts at 0.

    Attributes:
      expansion: channels inside, relative to those outside.
      group: channels of each group of the 3x3 convolution, at most.
      blocks: number of blocks in the network, for the initialisation.
      dtype: of the computation; parameters are float32.
    """

    expansion: int
    group: int
    blocks: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns feature maps of the shape of x."""
        outside = x.shape[-1]
        inside = outside * self.expansion
        init = _fixup(self.blocks)
        bias1 = self.param("bias1", _zeros, (inside,))
        bias2 = self.param("bias2", _zeros, (inside,))
        # Cast after the broadcast: its gradient, a sum over pixels, is then one in float32.
        add = lambda h, bias: h + jnp.broadcast_to(bias, h.shape).astype(self.dtype)
        h = Conv(inside, (1, 1), use_bias=False, kernel_init=init, dtype=self.dtype)(x)
        h = nn.leaky_relu(add(h, bias1), 0.2)
        groups = max(1, inside // self.group)
        grouped = nn.Conv(
            inside,
            (3, 3),
            feature_group_count=groups if inside % groups == 0 else 1,
            use_bias=False,
            kernel_init=init,
            dtype=self.dtype,
        )
        h = nn.leaky_relu(add(grouped(h), bias2), 0.2)
        return x + Conv(outside, (1, 1), use_bias=False, kernel_init=_zeros, dtype=self.dtype)(h)


def _stages(network: nn.Module, h: Array, resize: Callable, dtypes: Sequence[str]) -> Array:
    """Applies all blocks of a network; to be called inside its compact method.

    Args:
      network: the generator or the discriminator.
      h: [B, H, W, C], the input of the first stage.
      resize: (h, channels of the next stage, its dtype) -> the input of that stage.
      dtypes: of each stage.
    """
    blocks = network.blocks * len(network.features)
    make_block = nn.remat(Block) if network.remat else Block
    for stage, (features, dtype) in enumerate(zip(network.features, dtypes, strict=True)):
        h = (resize(h, features, dtype) if stage else h).astype(dtype)
        for i in range(network.blocks):
            name = f"Block_{stage * network.blocks + i}"
            h = make_block(network.expansion, network.group, blocks, dtype, name=name)(h)
    return h


def _stage_dtypes(network: nn.Module) -> list[str]:
    """Returns the dtype of each stage, from the lowest resolution to the highest."""
    full = min(network.float32_stages, len(network.features))
    return ["float32"] * full + [network.dtype] * (len(network.features) - full)


def _with_channels(h, features):
    """Changes the number of channels of h to `features`, if it differs, by a 1x1 convolution."""
    if features == h.shape[-1]:
        return h
    return Conv(features, (1, 1), use_bias=False, dtype=h.dtype)(h)


def _upsample_bilinear(h):
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
      float32_stages: stages, from the lowest resolution, that compute in float32 all the same.
      remat: whether blocks are computed again for their gradients, which saves memory.
    """

    image_shape: Shape
    features: tuple[int, ...] = (256, 256, 256, 256)
    blocks: int = 2
    expansion: int = 2
    group: int = 16
    dtype: str = "float32"
    float32_stages: int = 0
    remat: bool = False

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], y: Float[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b h w c"]:
        """Returns images, float32, of latents z and labels y; training brings them to [-1, 1]."""
        height, width = base_size(self.image_shape, len(self.features) - 1)
        dtypes = _stage_dtypes(self)
        z = z.astype(dtypes[0])
        if y is not None:
            embedded = nn.Dense(z.shape[-1], use_bias=False, dtype=dtypes[0], name="embedding")(y)
            z = jnp.concatenate([z, embedded * y.shape[-1] ** 0.5], axis=-1)
        first = self.features[0]
        basis = self.param("basis", nn.initializers.normal(1.0), (height, width, first))
        weights = nn.Dense(first, use_bias=False, kernel_init=_linear, dtype=dtypes[0])(z)
        h = basis.astype(dtypes[0]) * weights[:, None, None]
        enlarge = lambda h, n, dtype: _upsample_bilinear(_with_channels(h.astype(dtype), n))
        h = _stages(self, h, enlarge, dtypes)
        channels = self.image_shape[-1]
        return Conv(channels, (1, 1), use_bias=False, dtype=h.dtype)(h).astype(jnp.float32)


class R3ganDiscriminator(nn.Module):
    """Stages of blocks, each but the first of half the sides; a learned basis, one logit.

    Attributes:
      features: channels of each stage, the first at the size of the images.
      blocks, expansion, group, dtype, float32_stages, remat: as in the generator.
    """

    features: tuple[int, ...] = (256, 256, 256, 256)
    blocks: int = 2
    expansion: int = 2
    group: int = 16
    dtype: str = "float32"
    float32_stages: int = 0
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], y: Float[Array, "b k"] | None = None
    ) -> Float[Array, " b"]:
        """Returns the logits, float32, of images x and labels y."""
        base_size(x.shape[1:], len(self.features) - 1)
        first = self.features[0]
        dtypes = _stage_dtypes(self)[::-1]
        h = Conv(first, (1, 1), use_bias=False, dtype=dtypes[0])(x.astype(dtypes[0]))
        shrink = lambda h, features, _: _with_channels(average_pool_2x2(h), features)
        h = _stages(self, h, shrink, dtypes)
        _, height, width, channels = h.shape
        scale = nn.initializers.normal((height * width) ** -0.5)
        basis = self.param("basis", scale, (height, width, channels))
        h = jnp.sum(h.astype(jnp.float32) * basis, axis=(1, 2))
        if y is None:
            return nn.Dense(1, use_bias=False, kernel_init=_linear)(h)[:, 0]
        h = nn.Dense(channels, use_bias=False, kernel_init=_linear)(h)
        embedded = nn.Dense(channels, use_bias=False, name="embedding")(y)
        return jnp.sum(h * embedded, axis=-1) * (y.shape[-1] / channels) ** 0.5
