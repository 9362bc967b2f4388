"""Random numbers as a pure function of (seed, stream name, step, example).

No key is passed along by the loop of the host: a stream is folded out of the root key by its name,
a step out of the stream, an example out of the step. Because every example of the global batch has
a key of its own, noise depends neither on the number of devices nor on the layout of the batch over
them, and image i of a seed is the same image for every batch size.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from genjax.typing import AnyArray, Array, Float, Int, Key


def stream(root: Key[Array, ""], name: str, step: int | Int[AnyArray, ""] = 0) -> Key[Array, ""]:
    """Returns the key of the stream `name` at `step` under the key `root`."""
    key = jax.random.fold_in(root, zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def per_example(key: Key[Array, ""], index: Int[AnyArray, " b"]) -> Key[Array, " b"]:
    """Returns a key for each example; equal indices have equal keys."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(
    keys: Key[Array, " b"], shape: Sequence[int], dtype: Any = jnp.float32
) -> Float[Array, "b *shape"]:
    """Draws standard normal noise [b, *shape], row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def uniform(
    keys: Key[Array, " b"], shape: Sequence[int], dtype: Any = jnp.float32
) -> Float[Array, "b *shape"]:
    """Draws uniform noise in [0, 1), [b, *shape], row i from keys[i]."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rngs:
    """The random streams of one step, for a loss: `rngs("latent")` -> keys [B].

    Attributes:
      root: the root key of the run, the same at every step.
      step: number of the step.
      index: number of each example: its position in the global batch in training, in the dataset in
        evaluation.
    """

    root: Key[Array, ""]
    step: int | Int[AnyArray, ""]
    index: Int[AnyArray, " b"]

    def __call__(self, name: str) -> Key[Array, " b"]:
        """Returns one key for each example, of the stream `name`."""
        return per_example(stream(self.root, name, self.step), self.index)

    def layer(self, name: str) -> Key[Array, ""]:
        """Returns one key for a layer that draws for the batch as one (linen's Dropout).

        Under pmap each device has its own, so this noise, unlike all other, depends on the layout.
        """
        return jax.random.fold_in(stream(self.root, name, self.step), self.index[0])
