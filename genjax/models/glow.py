"""Glow (Kingma & Dhariwal 2018): steps of normalising, mixing and coupling channels."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.flows import (
    ActNorm,
    ChannelMix,
    ZeroConv,
    class_weights,
    per_example,
    scan_unroll,
    squeeze,
    squeezed_shape,
    unsqueeze,
)
from genjax.models.layers import Conv, Dense
from genjax.typing import Array, Float, Int, Shape

_zeros = nn.initializers.zeros_init()


class HalfCoupling(nn.Module):
    """(a, (b + t(a)) s(a)) of the halves (a, b) of the channels, s = sigmoid(2 + ...).

    Attributes:
      features: of two hidden convolutions, 3x3 and 1x1, normalised by `ActNorm`.
      dtype: of those.
    """

    features: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], reverse: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Returns the transformed x, or what it is of, and the log-determinant."""
        a, b = jnp.split(x, 2, axis=-1)
        h, init = a.astype(self.dtype), nn.initializers.normal(0.05)
        for name, side in (("first", 3), ("second", 1)):
            conv = Conv(
                self.features,
                (side, side),
                use_bias=False,
                kernel_init=init,
                dtype=self.dtype,
                name=name,
            )
            h = nn.relu(ActNorm(name=f"{name}_norm")(conv(h))[0].astype(self.dtype))
        shift, raw = jnp.split(ZeroConv(2 * b.shape[-1], name="last")(h), 2, axis=-1)
        log_scale = jax.nn.log_sigmoid(raw + 2.0)
        if reverse:
            b = b * jnp.exp(-log_scale) - shift
            return jnp.concatenate([a, b], axis=-1), -per_example(log_scale)
        b = (b + shift) * jnp.exp(log_scale)
        return jnp.concatenate([a, b], axis=-1), per_example(log_scale)


class GlowStep(nn.Module):
    """`ActNorm`, `ChannelMix` and `HalfCoupling`, or their inverse: the body of a scan.

    Attributes:
      features: of the coupling.
      reverse: whether it is the inverse.
      dtype: of the network of the coupling.
    """

    features: int
    reverse: bool = False
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self, carry: tuple[Float[Array, "b h w c"], Float[Array, " b"]], _: None
    ) -> tuple[tuple[Float[Array, "b h w c"], Float[Array, " b"]], None]:
        """Returns ((new x, log-determinant so far), None)."""
        x, log_det = carry
        layers = [
            ActNorm(name="norm"),
            ChannelMix(name="mix"),
            HalfCoupling(self.features, self.dtype, name="coupling"),
        ]
        for layer in layers[::-1] if self.reverse else layers:
            x, change = layer(x, self.reverse)
            log_det += change
        return (x, log_det), None


class Glow(nn.Module):
    """Glow. See `genjax.models.flows` for what it computes.

    At each level `squeeze`, then `depth` steps; at each level but the last one half of the channels
    become latents, normal with mean and deviation given by the other half. Those of the last level
    have learnt ones for each channel, which depend on the class. Zeros surround the images of a
    convolution; the authors' code marks them in a further channel.

    Attributes:
      features: channels inside of couplings.
      depth: steps of a level.
      levels: how many.
      num_classes: 0 for an unconditional network.
      remat: whether steps are computed again for their gradients, which saves memory.
      dtype: of the networks of couplings.
    """

    features: int = 512
    depth: int = 32
    levels: int = 3
    num_classes: int = 0
    remat: bool = False
    dtype: str = "float32"

    def latent_shapes(self, image_shape: Shape) -> tuple[Shape, ...]:
        """Returns the shapes of the latents of an image (H, W, C)."""
        shapes, shape = [], tuple(image_shape)
        for _ in range(self.levels - 1):
            height, width, channels = squeezed_shape(shape)
            shape = (height, width, channels // 2)
            shapes.append(shape)
        return (*shapes, squeezed_shape(shape))

    def _steps(self, level: int, x: Array, log_det: Array, reverse: bool) -> tuple[Array, Array]:
        """Applies the steps of a level, or inverts them."""
        step = nn.remat(GlowStep, prevent_cse=False) if self.remat else GlowStep
        scan = nn.scan(
            step,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=scan_unroll(self.depth),
            reverse=reverse,
        )
        steps = scan(self.features, reverse, self.dtype, name=f"level{level}")
        return steps((x, log_det), None)[0]

    def _split_prior(self, level: int, x: Array) -> list[Array]:
        """Returns [mean, log of the deviation] of the latents of a level, given x."""
        return jnp.split(ZeroConv(2 * x.shape[-1], name=f"prior{level}")(x), 2, axis=-1)

    def _top_prior(self, channels: int, label: Array | None) -> list[Array]:
        """Returns [mean, log of the deviation] of the last latents, for each channel."""
        h = self.param("top", _zeros, (2 * channels,))
        if self.num_classes:
            classes = class_weights(label, self.num_classes)
            dense = Dense(2 * channels, use_bias=False, kernel_init=_zeros, name="classes")
            h = (h + dense(classes))[:, None, None]
        return jnp.split(h, 2, axis=-1)

    @nn.compact
    def run(
        self,
        x: Float[Array, "b h w c"] | None,
        latents: tuple[Float[Array, "b ..."], ...] | None,
        label: Int[Array, " b"] | None,
    ) -> tuple[Any, Float[Array, " b"]]:
        """Maps images to (latents, log-determinant), or latents to (images, ...)."""
        if latents is not None:
            return self._run_back(list(latents), label)
        log_det, latents = jnp.zeros(len(x)), []
        for level in range(self.levels):
            x, log_det = self._steps(level, squeeze(x), log_det, False)
            if level < self.levels - 1:
                x, latent = jnp.split(x, 2, axis=-1)
                mean, log_std = self._split_prior(level, x)
            else:
                latent, (mean, log_std) = x, self._top_prior(x.shape[-1], label)
            latents.append((latent - mean) * jnp.exp(-log_std))
            log_det -= per_example(jnp.broadcast_to(log_std, latent.shape))
        return tuple(latents), log_det

    def _run_back(self, latents, label):
        log_det = jnp.zeros(len(latents[0]))
        mean, log_std = self._top_prior(latents[-1].shape[-1], label)
        x = mean + jnp.exp(log_std) * latents[-1]
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                mean, log_std = self._split_prior(level, x)
                x = jnp.concatenate([x, mean + jnp.exp(log_std) * latents[level]], axis=-1)
            x, log_det = self._steps(level, x, log_det, True)
            x = unsqueeze(x)
        return x, log_det

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[tuple[Float[Array, "b ..."], ...], Float[Array, " b"]]:
        """Returns latents and the log-determinant."""
        return self.run(x, None, label)

    def inverse(
        self,
        latents: tuple[Float[Array, "b ..."], ...],
        label: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Returns the images of latents."""
        return self.run(None, latents, label)[0]
