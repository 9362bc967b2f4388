"""TarFlow (Zhai et al. 2024): autoregressive flows of patches by causal transformers.

A block maps patches x_0 .. x_T-1, in raster order or in the reverse of it, to

  z_t = (x_t - b(x_<t)) exp(-a(x_<t)),   z_0 = x_0,

with a and b of a transformer that sees earlier patches only: one pass. Its inverse works patch by
patch, each time with the new patch alone and the keys and values of the earlier ones.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax.models.flows import class_weights, per_example, scan_unroll
from genjax.models.layers import Dense
from genjax.models.unet import patchify, unpatchify
from genjax.typing import Array, Bool, Float, Int, Shape

_zeros = nn.initializers.zeros_init()
_small = nn.initializers.normal(0.01)

Cache = tuple[Array, Array]  # keys and values [layers, B, T, heads, d]


class CausalLayer(nn.Module):
    """Causal attention and a two-layer perceptron; the body of a scan over layers.

    Attributes:
      head_dim: of each head.
      dtype: of the computation.
    """

    head_dim: int
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b length d"],
        cache: tuple[Float[Array, "b t heads k"], Float[Array, "b t heads k"]] | None,
        position: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "b length d"], Any]:
        """Returns (new tokens, cache): of all tokens, or of the one at `position`."""
        batch, length, dim = x.shape
        norm = lambda name: nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)
        dense = lambda features, name: Dense(features, dtype=self.dtype, name=name)
        qkv = dense(3 * dim, "qkv")(norm("norm1")(x))
        q, k, v = jnp.split(qkv.reshape(batch, length, -1, self.head_dim), 3, axis=2)
        if cache is not None:
            put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
                old, new.astype(old.dtype), position, 1
            )
            k, v = cache = put(cache[0], k), put(cache[1], v)
        attended = jax.nn.dot_product_attention(q, k, v, mask=_mask(k.shape[1], position))
        x += dense(dim, "out")(attended.reshape(x.shape))
        h = nn.gelu(dense(4 * dim, "mlp1")(norm("norm2")(x)), approximate=False)
        return x + dense(dim, "mlp2")(h), cache


def _mask(length: int, position: Array | None) -> Bool[Array, "1 1 queries keys"]:
    """Returns which tokens are seen, by every token or by the one at `position`."""
    tokens = jnp.arange(length)
    queries = tokens if position is None else position[None]
    return (tokens[None] <= queries[:, None])[None, None]


class CausalBlock(nn.Module):
    """One autoregressive flow of patches in their given order.

    Attributes:
      length: number of patches.
      width: of a token.
      layers: how many.
      head_dim: of each head.
      num_classes: 0 for an unconditional block.
      remat: whether layers are computed again for their gradients, which saves memory.
      dtype: of the transformer.
    """

    length: int
    width: int
    layers: int
    head_dim: int
    num_classes: int = 0
    remat: bool = False
    dtype: Any = "float32"

    @nn.compact
    def outputs(
        self,
        patches: Float[Array, "b length c"],
        label: Int[Array, " b"] | None,
        cache: Any = None,
        position: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "b length c"], Float[Array, "b length c"], Any]:
        """Computes a and b of the patches that follow the given ones, in float32.

        Args:
          patches: all, or the one at `position`.
          label: their classes; -1: none.
          cache: keys and values of earlier patches.
          position: None for all patches.

        Returns:
          (a, b, the new cache).
        """
        h = Dense(self.width, dtype=self.dtype, name="patches")(patches.astype(self.dtype))
        where = self.param("positions", _small, (self.length, self.width))
        if position is not None:
            where = jax.lax.dynamic_slice_in_dim(where, position, 1)
        h += where.astype(self.dtype)
        if self.num_classes:
            embedding = self.param("classes", _small, (self.num_classes, self.width))
            h += (class_weights(label, self.num_classes) @ embedding)[:, None].astype(self.dtype)
        layer = nn.remat(CausalLayer, prevent_cse=False) if self.remat else CausalLayer
        scan = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.layers,
            unroll=scan_unroll(self.layers),
        )
        h, cache = scan(self.head_dim, self.dtype, name="layers")(h, cache, position)
        out = Dense(2 * patches.shape[-1], kernel_init=_zeros, name="out")
        return *jnp.split(out(h.astype(jnp.float32)), 2, axis=-1), cache

    def __call__(
        self, x: Float[Array, "b length c"], label: Int[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b length c"], Float[Array, " b"]]:
        """Returns z and the log-determinant."""
        a, b, _ = self.outputs(x, label)
        later = lambda y: jnp.pad(y[:, :-1], ((0, 0), (1, 0), (0, 0)))
        a, b = later(a), later(b)
        return (x - b) * jnp.exp(-a), -per_example(a)

    def inverse(
        self,
        z: Float[Array, "b length c"],
        label: Int[Array, " b"] | None = None,
        guidance: float = 0.0,
    ) -> Float[Array, "b length c"]:
        """Returns x, patch by patch in one loop.

        Args:
          z: of the patches.
          label: their classes.
          guidance: how far a and b go beyond those of the class, away from those without class.
        """
        double = lambda y: jnp.concatenate([y, y]) if guidance else y
        if guidance:
            label = jnp.concatenate([label, jnp.full_like(label, -1)])

        def step(block, carry, inputs):
            patch, cache = carry
            position, z_next = inputs
            a, b, cache = block.outputs(double(patch)[:, None], label, cache, position)
            if guidance:
                a, b = (
                    y[: len(patch)] + guidance * (y[: len(patch)] - y[len(patch) :]) for y in (a, b)
                )
            patch = z_next * jnp.exp(a[:, 0]) + b[:, 0]
            return (patch, cache), patch

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        rows = len(z) * (2 if guidance else 1)
        heads = (self.width // self.head_dim, self.head_dim)
        empty = jnp.zeros((self.layers, rows, self.length, *heads), self.dtype)
        inputs = jnp.arange(self.length - 1), z[:, 1:].swapaxes(0, 1)
        _, rest = scan(self, (z[:, 0], (empty, empty)), inputs)
        return jnp.concatenate([z[:, :1], rest.swapaxes(0, 1)], axis=1)


class TarFlow(nn.Module):
    """TarFlow. See `genjax.models.flows` for what it computes; it has one latent, of patches.

    Attributes:
      patch_size: side of the square of pixels that is one token.
      width: of a token.
      blocks: autoregressive flows, in alternating order.
      layers: of the transformer of a block.
      head_dim: of each head of its attention.
      num_classes: 0 for an unconditional network; label -1 means no class.
      remat: whether layers are computed again for their gradients, which saves memory.
      dtype: of the transformers.
    """

    patch_size: int = 4
    width: int = 512
    blocks: int = 4
    layers: int = 8
    head_dim: int = 64
    num_classes: int = 0
    remat: bool = False
    dtype: str = "float32"

    def latent_shapes(self, image_shape: Shape) -> tuple[Shape, ...]:
        """Returns the shape of the latent of an image (H, W, C).

        Raises:
          ValueError: sides that are no multiples of `patch_size`.
        """
        height, width, channels = image_shape
        p = self.patch_size
        if height % p or width % p:
            raise ValueError(f"height and width must be multiples of {p}")
        return ((height // p, width // p, p * p * channels),)

    @nn.compact
    def run(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None,
        reverse: bool,
        guidance: float = 0.0,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Maps grids of patches to (latents, log-determinant), or back to (patches, ...)."""
        grid, log_det = x.shape, jnp.zeros(len(x))
        x = x.reshape(len(x), -1, x.shape[-1])
        for number in reversed(range(self.blocks)) if reverse else range(self.blocks):
            block = CausalBlock(
                x.shape[1],
                self.width,
                self.layers,
                self.head_dim,
                self.num_classes,
                self.remat,
                self.dtype,
                name=f"block{number}",
            )
            turn = lambda y, number=number: y[:, ::-1] if number % 2 else y
            if reverse:
                x = turn(block.inverse(turn(x), label, guidance))
            else:
                x, change = block(turn(x), label)
                x, log_det = turn(x), log_det + change
        return x.reshape(grid), log_det

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[tuple[Float[Array, "b ..."], ...], Float[Array, " b"]]:
        """Returns (the latent,) and the log-determinant."""
        z, log_det = self.run(patchify(x, self.patch_size), label, False)
        return (z,), log_det

    def inverse(
        self,
        latents: tuple[Float[Array, "b ..."], ...],
        label: Int[Array, " b"] | None = None,
        guidance: float = 0.0,
    ) -> Float[Array, "b h w c"]:
        """Returns the images of latents; `guidance` as in `CausalBlock.inverse`."""
        return unpatchify(self.run(latents[0], label, True, guidance)[0], self.patch_size)
