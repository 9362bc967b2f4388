"""The U-Net of DDPM (Ho et al. 2020) and DDPM++ (Song et al. 2021), in any size.

ddpm: attention in every block of its resolutions, sides halved and doubled by convolutions.
ddpmpp: as Karras et al. 2022 train it: sides halved and doubled inside residual blocks, residual
sums divided by sqrt(2), attention once in each stage of the decoder.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.attention import attend, sinusoidal
from genjax.models.layers import Conv, Dense, Dropout, average_pool_2x2, upsample_nearest
from genjax.typing import Array, Float, Int, Num

_zeros = nn.initializers.zeros_init()

# Functions of images that both branches of a residual block go through.
_RESAMPLERS = {"": lambda x: x, "halve": average_pool_2x2, "double": upsample_nearest}


def group_norm(dtype: str, name: str, channels: int, epsilon: float) -> nn.GroupNorm:
    """Returns a group norm of at most 32 groups and at least 4 channels a group."""
    return nn.GroupNorm(min(32, channels // 4), epsilon=epsilon, dtype=dtype, name=name)


class ResBlock(nn.Module):
    """Two convolutions and a residual sum, conditioned on an embedding of the time.

    Attributes:
      features: channels of the output.
      dropout: probability, before the second convolution.
      resample: "", "halve" or "double" the sides.
      skip_scale: factor of the sum.
      epsilon: of the group norms.
    """

    features: int
    dropout: float = 0.0
    resample: str = ""
    skip_scale: float = 1.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], emb: Float[Array, "b e"], train: bool
    ) -> Float[Array, "b rows columns features"]:
        """Returns new feature maps; their sides differ from those of x by `resample`."""
        resample = _RESAMPLERS[self.resample]
        norm = functools.partial(group_norm, self.dtype)
        conv = functools.partial(Conv, self.features, (3, 3), dtype=self.dtype)
        h = nn.silu(norm("norm1", x.shape[-1], self.epsilon)(x))
        h = conv(name="conv1")(resample(h))
        h += nn.Dense(self.features, dtype=self.dtype, name="time")(nn.silu(emb))[:, None, None]
        h = nn.silu(norm("norm2", self.features, self.epsilon)(h))
        h = Dropout(self.dropout, deterministic=not train)(h)
        h = conv(kernel_init=_zeros, name="conv2")(h)
        x = resample(x)
        if x.shape[-1] != self.features or self.resample:
            x = Dense(self.features, dtype=self.dtype, name="skip")(x)
        return (x + h) * self.skip_scale


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, with one head and a residual sum.

    Attributes:
      skip_scale: factor of the sum.
      epsilon: of the group norm.
    """

    skip_scale: float = 1.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns feature maps of the shape of x."""
        batch, height, width, channels = x.shape
        h = group_norm(self.dtype, "norm", channels, self.epsilon)(x)
        h = h.reshape(batch, height * width, 1, channels)
        h = attend(*jnp.split(Dense(3 * channels, dtype=self.dtype, name="qkv")(h), 3, axis=-1))
        h = Dense(channels, dtype=self.dtype, kernel_init=_zeros, name="out")(h)
        return (x + h.reshape(x.shape)) * self.skip_scale


class UNet(nn.Module):
    """A denoising network (x, c_noise, labels) -> an image of the shape of x.

    Attributes:
      channels: of the first stage.
      multipliers: channels of each stage, relative to `channels`; each stage has half the sides of
        the one before.
      num_blocks: residual blocks of each stage of the encoder; the decoder has one more.
      attention: sides of the feature maps (after patches are merged) at which there is attention.
      variant: "ddpm" or "ddpmpp".
      dropout: probability, in every residual block.
      num_classes: 0 for an unconditional network; label `num_classes` means no class.
      classes_first: whether the embedding of a class is added to the sinusoidal embedding of the
        time, as in Karras et al. 2022, or after the dense layers behind it.
      patch_size: side of the squares of pixels that are merged into one with more channels.
      remat: whether residual blocks are computed again for their gradients, which saves memory.
      dtype: of the computation; parameters are float32.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    num_blocks: int = 1
    attention: tuple[int, ...] = ()
    variant: str = "ddpmpp"
    dropout: float = 0.0
    num_classes: int = 0
    classes_first: bool = False
    patch_size: int = 1
    remat: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        c_noise: Num[Array, " b"] | Num[Array, "b k"],
        labels: Int[Array, " b"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Returns the output of the network, float32.

        Raises:
          ValueError: sides that cannot be halved as often as there are stages.
        """
        shape, p = x.shape, self.patch_size
        factor = p * 2 ** (len(self.multipliers) - 1)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        emb = self._embedding(c_noise, labels)
        make_block = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock

        def res(name, h, features, resample=""):
            block = make_block(
                features, self.dropout, resample, self._skip_scale, dtype=self.dtype, name=name
            )
            return block(h, emb, train)

        h = patchify(x, p).astype(self.dtype)
        h = Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(h)
        h, skips = self._encode(h, res)
        h = res("middle_0", h, h.shape[-1])
        if self.attention:
            h = self._attend("middle_attention", h)
        h = res("middle_1", h, h.shape[-1])
        h = self._decode(h, skips, res)
        h = nn.silu(group_norm(self.dtype, "norm_out", h.shape[-1], 1e-6)(h))
        conv = Conv(
            shape[-1] * p * p, (3, 3), dtype=jnp.float32, kernel_init=_zeros, name="conv_out"
        )
        return unpatchify(conv(h), p)

    @property
    def _plus(self):
        return self.variant == "ddpmpp"

    @property
    def _skip_scale(self):
        return 0.5**0.5 if self._plus else 1.0

    @property
    def _stages(self):
        """Pairs (number, channels), from fine to coarse."""
        return list(enumerate(self.channels * m for m in self.multipliers))

    def _embedding(self, c_noise, labels):
        """Returns the embedding [B, E] of time and class."""
        width = 4 * self.channels

        def add_classes(emb):
            table = nn.Embed(self.num_classes + 1, emb.shape[-1], dtype=self.dtype, name="classes")
            return emb + table(labels)

        emb = sinusoidal(c_noise, self.channels).astype(self.dtype)
        if self.num_classes and self.classes_first:
            emb = add_classes(emb)
        emb = nn.silu(nn.Dense(width, dtype=self.dtype, name="time1")(emb))
        emb = nn.Dense(width, dtype=self.dtype, name="time2")(emb)
        if self.num_classes and not self.classes_first:
            emb = add_classes(emb)
        return emb

    def _attend(self, name, h):
        return AttentionBlock(self._skip_scale, dtype=self.dtype, name=name)(h)

    def _encode(self, h: Array, res: Callable):
        """Returns the coarsest feature maps and all that the decoder concatenates, in order."""
        skips = [h]
        for stage, features in self._stages:
            if stage and self._plus:
                h = res(f"down{stage}_halve", h, h.shape[-1], "halve")
                skips.append(h)
            for block in range(self.num_blocks):
                h = res(f"down{stage}_{block}", h, features)
                if h.shape[1] in self.attention:
                    h = self._attend(f"down{stage}_{block}_attention", h)
                skips.append(h)
            if not self._plus and stage + 1 < len(self.multipliers):
                conv = Conv(
                    features,
                    (3, 3),
                    strides=2,
                    padding=((0, 1), (0, 1)),
                    dtype=self.dtype,
                    name=f"down{stage}_halve",
                )
                h = conv(h)
                skips.append(h)
        return h, skips

    def _decode(self, h: Array, skips: list[Array], res: Callable):
        """Returns the finest feature maps; takes `skips` from the end."""
        for stage, features in reversed(self._stages):
            if self._plus and stage + 1 < len(self.multipliers):
                h = res(f"up{stage}_double", h, h.shape[-1], "double")
            for block in range(self.num_blocks + 1):
                h = res(f"up{stage}_{block}", jnp.concatenate([h, skips.pop()], -1), features)
                last = block == self.num_blocks
                if h.shape[1] in self.attention and (last or not self._plus):
                    h = self._attend(f"up{stage}_{block}_attention", h)
            if stage and not self._plus:
                conv = Conv(features, (3, 3), dtype=self.dtype, name=f"up{stage}_double")
                h = conv(upsample_nearest(h))
        return h


def patchify(x: Num[Array, "b h w c"], p: int) -> Num[Array, "b rows columns channels"]:
    """Merges squares of p x p pixels into one: [B, H, W, C] -> [B, H / p, W / p, p p C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(
        batch, height // p, width // p, p * p * channels
    )


def unpatchify(x: Num[Array, "b rows columns channels"], p: int) -> Num[Array, "b h w c"]:
    """Splits every pixel into p x p of them, the inverse of `patchify`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, p, p, channels // (p * p))
    x = jnp.transpose(x, (0, 1, 3, 2, 4, 5))
    return x.reshape(batch, height * p, width * p, channels // (p * p))
