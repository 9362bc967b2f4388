"""A deep hierarchical VAE after VDVAE (Child 2021, https://arxiv.org/abs/2011.10650).

Bottom-up, residual blocks and average pooling compute one activation for each resolution. Top-down
follows, from a learned constant at the coarsest resolution, a stack of stochastic blocks. With x
from above and the activation a of its resolution, each computes (section 3.1 and figure 3):

  p(z | x), h = f(x);   q(z | x, a) = g(x, a);   x <- x + h;  z ~ q, or p;  x <- x + W z;  x <- r(x)

Initialisation, as in the paper, prevents posterior collapse and exploding activations: f starts at
the standard normal with h = 0, and the last layer of every residual branch, W among them, is
divided by the square root of the number of blocks.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax import rng
from genjax.models.layers import Conv, upsample_nearest
from genjax.typing import AnyArray, Array, Float, Int, Key, Params, Shape

# (dm, ds of the posterior branch, pm, ps of the prior) -> mean and log-scale of q.
POSTERIORS = {
    "direct": lambda dm, ds, pm, ps: (dm, ds),  # VDVAE
    "residual": lambda dm, ds, pm, ps: (pm + dm, ps + ds),  # NVAE, Vahdat & Kautz 2020, section 3.2
}

# --- Initialisation -------------------------------------------------------------------------------


def _bounds(scale: float = 1.0) -> Callable:
    """Returns an initialiser that fills a kernel with the bound of its uniform distribution.

    The bounds are +-1 / sqrt(fan in), PyTorch's default, with `scale` times the variance; `init`
    draws the kernels. Drawing each of the hundreds here would cost most of a second of compilation
    for each.
    """
    return lambda key, shape, dtype: jnp.full(shape, (scale / math.prod(shape[:-1])) ** 0.5, dtype)


def init(network: "VdVae", key: Key[Array, ""]) -> Params:
    """Returns initial parameters of a `VdVae`: all uniform kernels come from one draw."""
    x = jnp.zeros((1, *network.image_shape))
    params = network.init(key, jax.random.split(key, 1), x)["params"]
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    kernels = [path[-1].key == "kernel" for path, _ in leaves]
    sizes = [x.size if kernel else 0 for (_, x), kernel in zip(leaves, kernels)]
    noise = jax.random.uniform(key, (sum(sizes),), minval=-1.0, maxval=1.0)
    parts = jnp.split(noise, np.cumsum(sizes)[:-1])
    filled = [x * u.reshape(x.shape) if u.size else x for (_, x), u in zip(leaves, parts)]
    return jax.tree.unflatten(structure, filled)


# --- Networks -------------------------------------------------------------------------------------


class Block(nn.Module):
    """GELU and convolution, four times: 1x1 into the bottleneck, two of 3x3, 1x1 out of it.

    Attributes:
      features: output channels.
      bottleneck: channels in between.
      residual: whether the input is added.
      last_scale: variance of the last layer's initial weights, relative to the usual one.
      dtype: of the computation; parameters are float32.
      output_dtype: of the last layer; "" for `dtype`.
    """

    features: int
    bottleneck: int
    residual: bool = False
    last_scale: float = 1.0
    dtype: str = "float32"
    output_dtype: str = ""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        """Returns feature maps of the sides of x."""
        side = 3 if min(x.shape[1:3]) > 2 else 1  # at 1x1 and 2x2 most taps would see padding
        h = x
        for size in (1, side, side):
            conv = Conv(self.bottleneck, (size, size), kernel_init=_bounds(), dtype=self.dtype)
            h = conv(nn.gelu(h))
        last = _bounds(self.last_scale)
        dtype = self.output_dtype or self.dtype
        h = Conv(self.features, (1, 1), kernel_init=last, dtype=dtype)(nn.gelu(h))
        return x + h if self.residual else h


class VdVae(nn.Module):
    """Encoder, prior and decoder; sizes are listed from the image's resolution downwards.

    Parameters come from `init` of this module; linen's own `VdVae.init` leaves kernels constant.

    Attributes:
      image_shape: (H, W, C of the input).
      num_outputs: channels of the output.
      factors: by how much each resolution is smaller than the one before, the first of which is the
        image's own: (2, 2, 7) for 28, 14, 7, 1.
      encoder_blocks, decoder_blocks: number at each resolution, one more entry than `factors`.
      width: channels.
      bottleneck: channels inside the blocks.
      latent_channels: of z in each stochastic block.
      posterior: a name in `POSTERIORS`.
      remat: whether blocks are computed again for their gradients, which saves memory.
      dtype: of the computation; parameters and latents are float32.
    """

    image_shape: Shape
    num_outputs: int
    factors: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    width: int = 128
    bottleneck: int = 32
    latent_channels: int = 16
    posterior: str = "direct"
    remat: bool = False
    dtype: str = "float32"

    @property
    def num_levels(self) -> int:
        """Number of stochastic blocks."""
        return sum(self.decoder_blocks)

    @nn.compact
    def __call__(
        self,
        keys: Key[Array, " b"],
        x: Float[Array, "b h w c"] | None = None,
        num_posterior: int | Int[AnyArray, ""] | None = None,
        temperature: float | int | Float[Array, ""] = 1.0,
    ) -> tuple[Float[Array, "b h w outputs"], list[dict[str, Any]]]:
        """Draws z of every level and decodes them.

        Args:
          keys: of the noise.
          x: images in [0, 1]; None to draw from the prior alone.
          num_posterior: how many levels, from the top, are drawn from the posterior; the others
            come from the prior. None for all.
          temperature: of the prior's draws.

        Returns:
          (outputs float32, levels). With x, `levels` has for each level, from the top, {"q": (mean,
          log-scale), "p": (mean, log-scale), "z": drawn from q}, each float32 [b, its height, its
          width, latent_channels]; otherwise it is empty.

        Raises:
          ValueError: sizes that do not fit one another.
        """
        sizes = self._sizes()
        if not len(sizes) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("encoder_blocks and decoder_blocks must be one longer than factors")
        activations = [None] * len(sizes) if x is None else self._encode(x)
        h = jnp.zeros((keys.shape[0], *sizes[-1], self.width), self.dtype)
        levels = []
        number = 0
        for resolution in reversed(range(len(sizes))):
            if resolution < len(self.factors):
                h = upsample_nearest(h, self.factors[resolution])
            constant = self.param(
                f"constant_{resolution}",
                nn.initializers.zeros_init(),
                (*sizes[resolution], self.width),
            )
            h = h + constant.astype(self.dtype)
            for _ in range(self.decoder_blocks[resolution]):
                noise = rng.normal(
                    _fold_in_each(keys, number), (*sizes[resolution], self.latent_channels)
                )
                h, level = self._stochastic_block(
                    number, h, activations[resolution], noise, num_posterior, temperature
                )
                levels += [level] if level else []
                number += 1

        gain = self.param("gain", nn.initializers.ones_init(), (self.width,))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        h = h * gain.astype(self.dtype) + bias.astype(self.dtype)
        last = Conv(self.num_outputs, (1, 1), kernel_init=_bounds(), dtype="float32", name="output")
        return last(h), levels

    def _sizes(self):
        """Returns (height, width) of each resolution, from fine to coarse."""
        sizes = [self.image_shape[:2]]
        for factor in self.factors:
            height, width = sizes[-1]
            if height % factor or width % factor:
                raise ValueError(f"{height}x{width} is not a multiple of {factor}")
            sizes.append((height // factor, width // factor))
        return sizes

    def _block(self, name, features, residual=False, last_scale=1.0, output_dtype=""):
        make = nn.remat(Block) if self.remat else Block
        fields = (features, self.bottleneck, residual, last_scale, self.dtype, output_dtype)
        return make(*fields, name=name)

    def _encode(self, x):
        """Returns activations [B, h, w, width], from fine to coarse."""
        stem = Conv(self.width, (3, 3), kernel_init=_bounds(), dtype=self.dtype, name="stem")
        h = stem(2.0 * x.astype(self.dtype) - 1.0)
        scale = 1.0 / sum(self.encoder_blocks)
        activations = []
        for resolution, count in enumerate(self.encoder_blocks):
            if resolution:
                size = (self.factors[resolution - 1],) * 2
                h = nn.avg_pool(h, size, size)
            for i in range(count):
                h = self._block(f"encoder_{resolution}_{i}", self.width, True, scale)(h)
            activations.append(h)
        return activations

    def _stochastic_block(self, number, h, activation, noise, num_posterior, temperature):
        """Applies block `number` from the top.

        Args:
          h: [B, h, w, width], x in the docstring of this module.
          activation: [B, h, w, width], or None to draw from the prior.
          noise: standard normal [B, h, w, latent_channels].
          num_posterior, temperature: as in `__call__`.

        Returns:
          (the new h, {"q", "p", "z"} as `__call__` returns them, or {} without activation).
        """
        depth, scale, level = self.latent_channels, 1.0 / self.num_levels, {}
        # What densities are computed from is float32 from the last layer on.
        make_density = functools.partial(self._block, output_dtype="float32")
        prior = make_density(f"prior_{number}", 2 * depth + self.width, last_scale=0.0)(h)
        p = jnp.split(prior[..., : 2 * depth], 2, axis=-1)
        z = p[0] + temperature * jnp.exp(p[1]) * noise
        if activation is not None:
            inputs = jnp.concatenate([h, activation], axis=-1)
            branch = make_density(f"posterior_{number}", 2 * depth)(inputs)
            q = POSTERIORS[self.posterior](*jnp.split(branch, 2, axis=-1), *p)
            z_q = q[0] + jnp.exp(q[1]) * noise
            level = {"q": q, "p": tuple(p), "z": z_q}
            z = z_q if num_posterior is None else jnp.where(number < num_posterior, z_q, z)
        h = h + prior[..., 2 * depth :].astype(h.dtype)
        project = Conv(
            self.width,
            (1, 1),
            kernel_init=_bounds(scale),
            dtype=self.dtype,
            name=f"project_{number}",
        )
        h = h + project(z.astype(self.dtype))
        return self._block(f"decoder_{number}", self.width, True, scale)(h), level


def _fold_in_each(keys, number):
    """Returns other keys [B] for each `number`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
