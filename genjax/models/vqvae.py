"""Encoder, decoder and codebook of the VQ-VAE (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937); the codebook learns as an average (appendix A.1).

The codebook is not a parameter but state: {"codes": [K, D], "counts": [K], "sums": [K, D]}, where
counts and sums are moving averages of how many vectors chose a code and of what they add up to.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.layers import Conv, ConvTranspose
from genjax.models.vae_resnet import ResidualBlock


class VqEncoder(nn.Module):
    """Strided convolutions, residual blocks, a 1x1 convolution to the codes' dimension.

    Attributes:
      code_dim: D.
      width: channels.
      halvings: 4x4 convolutions of stride 2.
      blocks: residual blocks behind them.
      dtype: of the computation; parameters are float32.
    """

    code_dim: int
    width: int = 128
    halvings: int = 2
    blocks: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """x [B, H, W, C] in [0, 1] -> float32 [B, H / 2^halvings, W / 2^halvings, D]."""
        factor = 2**self.halvings
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        h = 2.0 * x.astype(self.dtype) - 1.0
        for _ in range(self.halvings):
            h = nn.silu(Conv(self.width, (4, 4), strides=(2, 2), dtype=self.dtype)(h))
        h = Conv(self.width, (3, 3), dtype=self.dtype)(h)
        for _ in range(self.blocks):
            h = ResidualBlock(self.dtype)(h)
        return Conv(self.code_dim, (1, 1), dtype=self.dtype)(nn.silu(h)).astype(jnp.float32)


class VqDecoder(nn.Module):
    """The encoder turned round.

    Attributes:
      channels: of the output.
      width, halvings, blocks, dtype: as in `VqEncoder`.
    """

    channels: int
    width: int = 128
    halvings: int = 2
    blocks: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z):
        """z [B, h, w, D] -> outputs float32 [B, h 2^halvings, w 2^halvings, channels]."""
        h = Conv(self.width, (3, 3), dtype=self.dtype)(z.astype(self.dtype))
        for _ in range(self.blocks):
            h = ResidualBlock(self.dtype)(h)
        for _ in range(self.halvings):
            h = nn.silu(h)
            h = ConvTranspose(self.width, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
        return Conv(self.channels, (3, 3), dtype=self.dtype)(nn.silu(h)).astype(jnp.float32)


def init_codebook(key, num_codes, code_dim):
    """Codes drawn from a standard normal, each as if one vector had chosen it."""
    codes = jax.random.normal(key, (num_codes, code_dim))
    return {"codes": codes, "counts": jnp.ones(num_codes), "sums": codes}


def nearest_codes(z, codes):
    """The index of the code nearest to each vector: z [..., D], codes [K, D] -> int32 [...]."""
    # |z - e|^2 less |z|^2. Highest precision, since the terms cancel.
    dots = jnp.matmul(z, codes.T, precision="highest")
    return jnp.argmin(jnp.sum(codes**2, axis=-1) - 2 * dots, axis=-1).astype(jnp.int32)


def straight_through(z, quantized):
    """`quantized`, with the gradient of z (section 3.2)."""
    return z + jax.lax.stop_gradient(quantized - z)


def update_codebook(codebook, z, index, decay, restart_below, key, axis_name=None):
    """One step of the moving averages (equations 6 to 8), and dead codes begin anew.

    Args:
      codebook: see above.
      z: vectors [N, D] of this device.
      index: int32 [N], the codes that they chose.
      decay: of the averages.
      restart_below: a code whose average count is less is set to a vector of the batch (Dhariwal
        et al. 2020, section 3.1); 0 for never.
      key: which vectors; the same on all devices.
      axis_name: of the devices under pmap, over which the averages are taken; else None.

    Returns:
      The new codebook, the same on all devices.
    """
    num_codes = len(codebook["counts"])
    z = jax.lax.stop_gradient(z)
    chosen = jax.nn.one_hot(index, num_codes)
    counts = jnp.sum(chosen, axis=0)
    sums = jnp.matmul(chosen.T, z, precision="highest")
    if axis_name is not None:
        counts, sums = jax.lax.psum((counts, sums), axis_name)
        z = jax.lax.all_gather(z, axis_name, tiled=True)
    counts = decay * codebook["counts"] + (1 - decay) * counts
    sums = decay * codebook["sums"] + (1 - decay) * sums
    dead = counts < restart_below
    fresh = z[jax.random.randint(key, (num_codes,), 0, len(z))]
    # As if it were chosen just often enough, so that it has time to be chosen.
    least = jnp.maximum(restart_below, 1e-5)
    counts = jnp.where(dead, least, jnp.maximum(counts, 1e-5))
    sums = jnp.where(dead[:, None], least * fresh, sums)
    return {"codes": sums / counts[:, None], "counts": counts, "sums": sums}


def perplexity(frequencies):
    """exp of the entropy of how often codes are chosen, [K] summing to 1: 1 for one, K for all."""
    return jnp.exp(-jnp.sum(jnp.where(frequencies > 0, frequencies * jnp.log(frequencies), 0.0)))
