"""A deep hierarchical VAE in the line of VDVAE (Child 2021, https://arxiv.org/abs/2011.10650).

Bottom-up, residual blocks and average pooling leave one activation for each resolution. Top-down,
from a learned constant at the coarsest, a stack of stochastic blocks; each, with x from above and
the activation a of its resolution (section 3.1 and figure 3):

  p(z | x), h = f(x);   q(z | x, a) = g(x, a);   x <- x + h;  z ~ q, or p;  x <- x + W z;  x <- r(x)

What keeps it from collapsing and from blowing up is the paper's too: f starts at the standard
normal with h = 0, and the last layer of every residual branch, W among them, is scaled down by the
square root of the number of blocks.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genjax import rng
from genjax.models.layers import Conv
from genjax.models.vae_resnet import upsample

# How q's mean m and log-scale s come of the posterior branch (dm, ds) and the prior's (pm, ps).
POSTERIORS = {
    "direct": lambda dm, ds, pm, ps: (dm, ds),  # VDVAE
    "residual": lambda dm, ds, pm, ps: (pm + dm, ps + ds),  # NVAE, Vahdat & Kautz 2020, section 3.2
}


def _init(scale=1.0):
    """The bounds +-1 / sqrt(fan in) of PyTorch's default, the variance times `scale`.

    Only the bounds, which `init` fills: XLA takes most of a second for each random array, and there
    are hundreds.
    """
    return lambda key, shape, dtype: jnp.full(shape, (scale / math.prod(shape[:-1])) ** 0.5, dtype)


def init(network, key):
    """Initial parameters of a `VdVae`: every kernel uniform, of one draw for all."""
    x = jnp.zeros((1, *network.image_shape))
    params = network.init(key, jax.random.split(key, 1), x)["params"]
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    kernels = [path[-1].key == "kernel" for path, _ in leaves]
    sizes = [x.size if kernel else 0 for (_, x), kernel in zip(leaves, kernels)]
    noise = jax.random.uniform(key, (sum(sizes),), minval=-1.0, maxval=1.0)
    parts = jnp.split(noise, np.cumsum(sizes)[:-1])
    filled = [x * u.reshape(x.shape) if u.size else x for (_, x), u in zip(leaves, parts)]
    return jax.tree.unflatten(structure, filled)


class Block(nn.Module):
    """GELU and convolution, four times: 1x1 into the bottleneck, two of 3x3, 1x1 out of it.

    Attributes:
      features: output channels.
      bottleneck: channels in between.
      residual: whether the input is added.
      last_scale: variance of the last layer's initial weights, as a share of the usual one.
      dtype: of the computation; parameters are float32.
    """

    features: int
    bottleneck: int
    residual: bool = False
    last_scale: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> [B, H, W, features]."""
        side = 3 if min(x.shape[1:3]) > 2 else 1  # at 1x1 and 2x2 most taps would see padding
        h = x
        for size in (1, side, side):
            conv = Conv(self.bottleneck, (size, size), kernel_init=_init(), dtype=self.dtype)
            h = conv(nn.gelu(h))
        last = _init(self.last_scale)
        h = Conv(self.features, (1, 1), kernel_init=last, dtype=self.dtype)(nn.gelu(h))
        return x + h if self.residual else h


class VdVae(nn.Module):
    """Encoder, prior and decoder; the sizes are given from the image's resolution downwards.

    Its parameters are made by `init` of this file; its own method leaves kernels constant.

    Attributes:
      image_shape: (H, W, C of the input).
      num_outputs: channels of the output.
      factors: by how much each resolution is smaller than the one before, the image's own being
        the first: (2, 2, 7) for 28, 14, 7, 1.
      encoder_blocks, decoder_blocks: how many at each resolution, one more than `factors`.
      width: channels.
      bottleneck: channels inside the blocks.
      latent_channels: of z in each stochastic block.
      posterior: a name in `POSTERIORS`.
      dtype: of the computation; parameters, latents are float32.
    """

    image_shape: tuple[int, int, int]
    num_outputs: int
    factors: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    width: int = 128
    bottleneck: int = 32
    latent_channels: int = 16
    posterior: str = "direct"
    dtype: str = "float32"

    @property
    def num_levels(self):
        return sum(self.decoder_blocks)

    def _sizes(self):
        """(height, width) of each resolution, from fine to coarse."""
        sizes = [self.image_shape[:2]]
        for factor in self.factors:
            height, width = sizes[-1]
            if height % factor or width % factor:
                raise ValueError(f"{height}x{width} is not a multiple of {factor}")
            sizes.append((height // factor, width // factor))
        return sizes

    def _encode(self, x):
        """Activations [B, h, w, width], from fine to coarse."""
        stem = Conv(self.width, (3, 3), kernel_init=_init(), dtype=self.dtype, name="stem")
        h = stem(2.0 * x.astype(self.dtype) - 1.0)
        scale = 1.0 / sum(self.encoder_blocks)
        found = []
        for level, count in enumerate(self.encoder_blocks):
            if level:
                h = nn.avg_pool(h, (self.factors[level - 1],) * 2, (self.factors[level - 1],) * 2)
            for i in range(count):
                block = Block(self.width, self.bottleneck, True, scale, self.dtype)
                h = block.copy(name=f"encoder_{level}_{i}")(h)
            found.append(h)
        return found

    @nn.compact
    def __call__(self, keys, x=None, num_posterior=None, temperature=1.0):
        """Draws z of every level and decodes them.

        Args:
          keys: [B], of the noise.
          x: images [B, H, W, C] in [0, 1]; None to draw from the prior alone.
          num_posterior: int32 scalar, how many levels, from the top, are drawn from the posterior;
            the others come from the prior. None for all.
          temperature: of the prior's draws.

        Returns:
          outputs float32 [B, H, W, num_outputs], and with x, of each level from the top, else
          empty, {"q": (mean, log-scale), "p": (mean, log-scale), "z": drawn from q}, each float32
          [B, h, w, latent_channels].
        """
        sizes = self._sizes()
        if not len(sizes) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError("encoder_blocks and decoder_blocks must be one longer than factors")
        activations = None if x is None else self._encode(x)
        batch, scale = keys.shape[0], 1.0 / self.num_levels
        levels = []
        h = jnp.zeros((batch, *sizes[-1], self.width), self.dtype)
        number = 0

        def block(kind, i, features, residual=False, scale=1.0):
            made = Block(features, self.bottleneck, residual, scale, self.dtype)
            return made.copy(name=f"{kind}_{i}")

        for level in reversed(range(len(sizes))):
            if level < len(self.factors):
                h = upsample(h, self.factors[level])
            constant = self.param(
                f"constant_{level}", nn.initializers.zeros_init(), (*sizes[level], self.width)
            )
            h = h + constant.astype(self.dtype)
            for _ in range(self.decoder_blocks[level]):
                depth = self.latent_channels
                prior = block("prior", number, 2 * depth + self.width, scale=0.0)(h)
                p = jnp.split(prior[..., : 2 * depth].astype(jnp.float32), 2, axis=-1)
                noise = rng.normal(_numbered(keys, number), (*sizes[level], depth))
                z = p[0] + temperature * jnp.exp(p[1]) * noise
                if x is not None:
                    seen = jnp.concatenate([h, activations[level]], axis=-1)
                    branch = block("posterior", number, 2 * depth)(seen).astype(jnp.float32)
                    q = POSTERIORS[self.posterior](*jnp.split(branch, 2, axis=-1), *p)
                    z_q = q[0] + jnp.exp(q[1]) * noise
                    levels.append({"q": q, "p": tuple(p), "z": z_q})
                    z = z_q if num_posterior is None else jnp.where(number < num_posterior, z_q, z)
                h = h + prior[..., 2 * depth :]
                project = Conv(self.width, (1, 1), kernel_init=_init(scale), dtype=self.dtype)
                h = h + project.copy(name=f"project_{number}")(z.astype(self.dtype))
                h = block("decoder", number, self.width, residual=True, scale=scale)(h)
                number += 1

        gain = self.param("gain", nn.initializers.ones_init(), (self.width,))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        h = h * gain.astype(self.dtype) + bias.astype(self.dtype)
        last = Conv(self.num_outputs, (1, 1), kernel_init=_init(), dtype=self.dtype, name="output")
        out = last(h)
        return out.astype(jnp.float32), levels


def _numbered(keys, number):
    """Other keys [B] for each `number`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
