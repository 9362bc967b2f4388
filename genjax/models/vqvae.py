"""Encoder, decoder and codebook of the VQ-VAE (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937); the codebook is learned as a moving average (appendix A.1).

The codebook is not a parameter but state: {"codes": [K, D], "counts": [K], "sums": [K, D]}, where
counts and sums are moving averages of the number of vectors that chose a code and of their sum.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.devices import gather_over_devices, sum_over_devices
from genjax.models.layers import Conv, ConvTranspose
from genjax.models.vae_resnet import ResidualBlock
from genjax.typing import Array, Float, Int, Key, ModelState, Num


class VqEncoder(nn.Module):
    """Strided convolutions, residual blocks, a 1x1 convolution to the dimension of the codes.

    Attributes:
      code_dim: D.
      width: channels.
      halvings: 4x4 convolutions of stride 2.
      blocks: residual blocks after them.
      dtype: of the computation; parameters are float32.
    """

    code_dim: int
    width: int = 128
    halvings: int = 2
    blocks: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns d"]:
        """Returns vectors, float32, of images in [0, 1]; sides are divided by 2^halvings.

        Raises:
          ValueError: sides that cannot be halved so often.
        """
        factor = 2**self.halvings
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        h = 2.0 * x.astype(self.dtype) - 1.0
        for _ in range(self.halvings):
            h = nn.silu(Conv(self.width, (4, 4), strides=(2, 2), dtype=self.dtype)(h))
        h = Conv(self.width, (3, 3), dtype=self.dtype)(h)
        for _ in range(self.blocks):
            h = ResidualBlock(self.dtype)(h)
        return Conv(self.code_dim, (1, 1), dtype=jnp.float32)(nn.silu(h))


class VqDecoder(nn.Module):
    """The mirror image of the encoder.

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
    def __call__(self, z: Float[Array, "b rows columns d"]) -> Float[Array, "b h w c"]:
        """Returns outputs, float32, of codes z; sides are multiplied by 2^halvings."""
        h = Conv(self.width, (3, 3), dtype=self.dtype)(z.astype(self.dtype))
        for _ in range(self.blocks):
            h = ResidualBlock(self.dtype)(h)
        for _ in range(self.halvings):
            h = nn.silu(h)
            h = ConvTranspose(self.width, (4, 4), strides=(2, 2), dtype=self.dtype)(h)
        return Conv(self.channels, (3, 3), dtype=jnp.float32)(nn.silu(h))


# --- Codebook -------------------------------------------------------------------------------------


def init_codebook(key: Key[Array, ""], num_codes: int, code_dim: int) -> ModelState:
    """Draws codes from a standard normal, each counted as if one vector had chosen it."""
    codes = jax.random.normal(key, (num_codes, code_dim))
    return {"codes": codes, "counts": jnp.ones(num_codes), "sums": codes}


def nearest_codes(z: Float[Array, "*batch d"], codes: Float[Array, "k d"]) -> Int[Array, "*batch"]:
    """Returns the index, int32, of the code nearest to each vector."""
    # |z - e|^2 less |z|^2. Highest precision, since the terms cancel.
    dots = jnp.matmul(z, codes.T, precision="highest")
    return jnp.argmin(jnp.sum(codes**2, axis=-1) - 2 * dots, axis=-1).astype(jnp.int32)


def straight_through(
    z: Float[Array, "*shape"], quantized: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns `quantized`, with the gradient of z (section 3.2)."""
    return z + jax.lax.stop_gradient(quantized - z)


def update_codebook(
    codebook: ModelState,
    z: Float[Array, "n d"],
    index: Int[Array, " n"],
    decay: float | int,
    restart_below: float | int,
    key: Key[Array, ""],
) -> ModelState:
    """Updates the moving averages (equations 6 to 8) and restarts unused codes.

    Args:
      codebook: as in the docstring of this module.
      z: vectors; under pmap, those of this device.
      index: the codes that they chose.
      decay: of the averages.
      restart_below: a code whose average count is smaller is set to a vector of the batch (Dhariwal
        et al. 2020, section 3.1); 0 for never.
      key: selects these vectors; the same on all devices.

    Returns:
      The new codebook, of the global batch and the same on all devices.
    """
    num_codes = len(codebook["counts"])
    z = jax.lax.stop_gradient(z)
    chosen = jax.nn.one_hot(index, num_codes)
    counts = jnp.sum(chosen, axis=0)
    sums = jnp.matmul(chosen.T, z, precision="highest")
    counts, sums = sum_over_devices((counts, sums))
    z = gather_over_devices(z)
    counts = decay * codebook["counts"] + (1 - decay) * counts
    sums = decay * codebook["sums"] + (1 - decay) * sums
    unused = counts < restart_below
    fresh = z[jax.random.randint(key, (num_codes,), 0, len(z))]
    # Counted as if it were chosen just often enough, so that it has time to be chosen.
    least = jnp.maximum(restart_below, 1e-5)
    counts = jnp.where(unused, least, jnp.maximum(counts, 1e-5))
    sums = jnp.where(unused[:, None], least * fresh, sums)
    return {"codes": sums / counts[:, None], "counts": counts, "sums": sums}


def perplexity(frequencies: Num[Array, " k"]) -> Float[Array, ""]:
    """Computes exp of the entropy of the codes' frequencies, which sum to 1.

    It is 1 if one code is always chosen and k if all are chosen equally often.
    """
    return jnp.exp(-jnp.sum(jnp.where(frequencies > 0, frequencies * jnp.log(frequencies), 0.0)))
