"""The U-Net of DDPM (Ho et al. 2020) and DDPM++ (Song et al. 2021), in any size.

ddpm: attention in every block of its resolutions, sides halved and doubled by convolutions.
ddpmpp: as Karras et al. 2022 train it: sides halved and doubled inside of residual blocks, residual
sums over sqrt(2), attention once in each stage of the decoder.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.attention import attend, sinusoidal
from genjax.models.layers import Conv, Dense


def group_norm(dtype, name, channels, epsilon):
    return nn.GroupNorm(min(32, channels // 4), epsilon=epsilon, dtype=dtype, name=name)


def halve(x):
    """Means of 2x2 squares."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


def double(x):
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class ResBlock(nn.Module):
    """Two convolutions and a residual sum, told the time by a vector.

    Attributes:
      features: channels of the output.
      resample: None, or a function of images that both branches go through.
      skip_scale: of the sum.
    """

    features: int
    dropout: float = 0.0
    resample: str = ""
    skip_scale: float = 1.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, emb, train):
        """x [B, H, W, C], emb [B, E] -> [B, H', W', features]."""
        resample = {"": lambda x: x, "halve": halve, "double": double}[self.resample]
        norm = functools.partial(group_norm, self.dtype)
        h = nn.silu(norm("norm1", x.shape[-1], self.epsilon)(x))
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv1")(resample(h))
        h += nn.Dense(self.features, dtype=self.dtype, name="time")(nn.silu(emb))[:, None, None]
        h = nn.silu(norm("norm2", self.features, self.epsilon)(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(
            self.features,
            (3, 3),
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros_init(),
            name="conv2",
        )(h)
        x = resample(x)
        if x.shape[-1] != self.features or self.resample:
            x = Dense(self.features, dtype=self.dtype, name="skip")(x)
        return (x + h) * self.skip_scale


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, one head, with a residual sum."""

    skip_scale: float = 1.0
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, channels = x.shape
        h = group_norm(self.dtype, "norm", channels, self.epsilon)(x)
        h = h.reshape(batch, height * width, 1, channels)
        dense = functools.partial(Dense, channels, dtype=self.dtype)
        h = attend(*jnp.split(Dense(3 * channels, dtype=self.dtype, name="qkv")(h), 3, axis=-1))
        h = dense(name="out", kernel_init=nn.initializers.zeros_init())(h)
        return (x + h.reshape(x.shape)) * self.skip_scale


class UNet(nn.Module):
    """(x, c_noise, labels) -> an image of x's shape.

    Attributes:
      channels: of the first stage.
      multipliers: channels of each stage over that; the sides halve from one to the next.
      num_blocks: residual blocks of each stage of the encoder; the decoder has one more.
      attention: sides (of the feature maps, counted after patches) at which there is attention.
      variant: "ddpm" or "ddpmpp".
      num_classes: 0 for none; label `num_classes` means no class.
      classes_first: whether a class is added to the sines of the time, as Karras et al. 2022 do,
        or to what the layers make of them.
      patch_size: squares of so many pixels are one, with as many times the channels.
      remat: residual blocks are computed again for their gradients, which saves memory.
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
    def __call__(self, x, c_noise, labels=None, train=False):
        """x [B, H, W, C], c_noise [B] or [B, K], labels int [B] -> float32 [B, H, W, C]."""
        shape, p = x.shape, self.patch_size
        factor = p * 2 ** (len(self.multipliers) - 1)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        plus = self.variant == "ddpmpp"
        skip_scale = 0.5**0.5 if plus else 1.0
        make_res = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock

        def res(name, h, features, resample=""):
            block = make_res(
                features, self.dropout, resample, skip_scale, dtype=self.dtype, name=name
            )
            return block(h, emb, train)

        def attention(name, h):
            return AttentionBlock(skip_scale, dtype=self.dtype, name=name)(h)

        width = 4 * self.channels
        emb = sinusoidal(c_noise, self.channels).astype(self.dtype)

        def classes(emb):
            table = nn.Embed(self.num_classes + 1, emb.shape[-1], dtype=self.dtype, name="classes")
            return emb + table(labels)

        if self.num_classes and self.classes_first:
            emb = classes(emb)
        emb = nn.silu(nn.Dense(width, dtype=self.dtype, name="time1")(emb))
        emb = nn.Dense(width, dtype=self.dtype, name="time2")(emb)
        if self.num_classes and not self.classes_first:
            emb = classes(emb)

        h = patchify(x, p).astype(self.dtype)
        h = Conv(self.channels, (3, 3), dtype=self.dtype, name="conv_in")(h)
        skips = [h]
        stages = list(enumerate(self.channels * m for m in self.multipliers))
        for stage, features in stages:
            if stage and plus:
                h = res(f"down{stage}_halve", h, h.shape[-1], "halve")
                skips.append(h)
            for block in range(self.num_blocks):
                h = res(f"down{stage}_{block}", h, features)
                if h.shape[1] in self.attention:
                    h = attention(f"down{stage}_{block}_attention", h)
                skips.append(h)
            if not plus and stage + 1 < len(stages):
                h = Conv(
                    features,
                    (3, 3),
                    strides=2,
                    padding=((0, 1), (0, 1)),
                    dtype=self.dtype,
                    name=f"down{stage}_halve",
                )(h)
                skips.append(h)
        h = res("middle_0", h, h.shape[-1])
        if self.attention:
            h = attention("middle_attention", h)
        h = res("middle_1", h, h.shape[-1])
        for stage, features in reversed(stages):
            if plus and stage + 1 < len(stages):
                h = res(f"up{stage}_double", h, h.shape[-1], "double")
            for block in range(self.num_blocks + 1):
                h = res(f"up{stage}_{block}", jnp.concatenate([h, skips.pop()], -1), features)
                last = block == self.num_blocks
                if h.shape[1] in self.attention and (last or not plus):
                    h = attention(f"up{stage}_{block}_attention", h)
            if stage and not plus:
                h = Conv(features, (3, 3), dtype=self.dtype, name=f"up{stage}_double")(double(h))
        h = nn.silu(group_norm(self.dtype, "norm_out", h.shape[-1], 1e-6)(h))
        out = Conv(
            shape[-1] * p * p,
            (3, 3),
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros_init(),
            name="conv_out",
        )(h)
        return unpatchify(out, p).astype(jnp.float32)


def patchify(x, p):
    """[B, H, W, C] -> [B, H / p, W / p, p p C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(
        batch, height // p, width // p, p * p * channels
    )


def unpatchify(x, p):
    """The inverse of `patchify`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, p, p, channels // (p * p))
    x = jnp.transpose(x, (0, 1, 3, 2, 4, 5))
    return x.reshape(batch, height * p, width * p, channels // (p * p))
