"""RealNVP (Dinh et al. 2017): couplings with checkerboard and channel masks at several scales."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.flows import (
    ActNorm,
    MaskedCoupling,
    class_weights,
    log_standard_normal,
    per_example,
    squeeze,
    squeezed_shape,
    unsqueeze,
)
from genjax.typing import Array, Float, Int, Shape


class RealNvp(nn.Module):
    """RealNVP. See `genjax.models.flows` for what it computes.

    At each scale but the last: three couplings with checkerboards, `squeeze`, three with halves of
    the channels, and half of the channels become latents. At the last one: four checkerboards.
    After each coupling the channels are normalised as in Glow (`ActNorm`) instead of by batch
    statistics, and there is no batch or weight norm inside of its networks.

    Attributes:
      features, blocks: of the residual network of a coupling.
      scales: how many.
      num_classes: 0 for an unconditional network.
      remat: whether couplings are computed again for their gradients, which saves memory.
      dtype: of the networks of couplings.
    """

    features: int = 64
    blocks: int = 8
    scales: int = 2
    num_classes: int = 0
    remat: bool = False
    dtype: str = "float32"

    def _plan(self) -> Iterator[tuple[str, bool, bool]]:
        """Yields (what is done, whether with a checkerboard, whether with the odd mask)."""
        for _ in range(self.scales - 1):
            yield from (("couple", True, i % 2 == 1) for i in range(3))
            yield "squeeze", False, False
            yield from (("couple", False, i % 2 == 1) for i in range(3))
            yield "split", False, False
        yield from (("couple", True, i % 2 == 1) for i in range(4))

    def latent_shapes(self, image_shape: Shape) -> tuple[Shape, ...]:
        """Returns the shapes of the latents of an image (H, W, C)."""
        shapes, shape = [], tuple(image_shape)
        for _ in range(self.scales - 1):
            height, width, channels = squeezed_shape(shape)
            shape = (height, width, channels // 2)
            shapes.append(shape)
        return (*shapes, shape)

    def _layer(self, x, classes, number, checker, odd, reverse):
        """Applies coupling `number` and its norm, or inverts them."""
        make = nn.remat(MaskedCoupling, static_argnums=(3,)) if self.remat else MaskedCoupling
        couple = make(
            checker, odd, self.features, self.blocks, self.dtype, name=f"coupling{number}"
        )
        norm = ActNorm(name=f"norm{number}")
        if reverse:
            x, first = norm(x, True)
            x, second = couple(x, classes, True)
        else:
            x, first = couple(x, classes, False)
            x, second = norm(x)
        return x, first + second

    @nn.compact
    def run(
        self,
        x: Float[Array, "b h w c"] | None,
        latents: tuple[Float[Array, "b ..."], ...] | None,
        label: Int[Array, " b"] | None,
    ) -> tuple[Any, Float[Array, " b"]]:
        """Maps images to (latents, log-determinant), or latents to (images, ...)."""
        classes = class_weights(label, self.num_classes) if self.num_classes else None
        if latents is not None:
            return self._run_back(list(latents), classes)
        latents, log_det = [], jnp.zeros(len(x))
        for number, (what, checker, odd) in enumerate(self._plan()):
            if what == "squeeze":
                x = squeeze(x)
            elif what == "split":
                x, latent = jnp.split(x, 2, axis=-1)
                latents.append(latent)
            else:
                x, change = self._layer(x, classes, number, checker, odd, False)
                log_det += change
        return (*latents, x), log_det

    def _run_back(self, latents, classes):
        x = latents.pop()
        log_det = jnp.zeros(len(x))
        for number, (what, checker, odd) in reversed(list(enumerate(self._plan()))):
            if what == "squeeze":
                x = unsqueeze(x)
            elif what == "split":
                x = jnp.concatenate([x, latents.pop()], axis=-1)
            else:
                x, change = self._layer(x, classes, number, checker, odd, True)
                log_det += change
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


class VariationalNoise(nn.Module):
    """q(u | x), the noise in [0, 1) of variational dequantisation (Ho et al. 2019, section 3.1).

    Couplings with checkerboards turn normal noise, given the image, into logits of u.

    Attributes:
      features, blocks: of the residual network of a coupling.
      couplings: how many.
      dtype: of those networks.
    """

    features: int = 32
    blocks: int = 2
    couplings: int = 4
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, noise: Float[Array, "b h w c"], image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Returns u and log q(u | image) for standard normal noise."""
        log_q, v = log_standard_normal(noise), noise
        for i in range(self.couplings):
            couple = MaskedCoupling(
                True, i % 2 == 1, self.features, self.blocks, self.dtype, name=f"coupling{i}"
            )
            v, change = couple(v, context=image)
            log_q -= change
        log_q -= per_example(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))
        return jax.nn.sigmoid(v), log_q
