"""Random numbers as a pure function of (seed, stream name, step, example).

No key travels through the host loop: a stream is folded out of the root key by its name, a step
out of the stream, an example out of the step. Because every example of the global batch has a key
of its own, noise depends neither on the number of devices nor on how the batch is laid out over
them, and image i of a seed is the same image whatever the batch size.
"""

import dataclasses
import zlib

import jax
import jax.numpy as jnp


def stream(root, name, step=0):
    """Key of the stream `name` (a string) at `step` (int or int32 scalar) under the key `root`."""
    key = jax.random.fold_in(root, zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def per_example(key, index):
    """One key an example: `index` int32 [B] -> keys [B]. Equal indices give equal keys."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def normal(keys, shape, dtype=jnp.float32):
    """Standard normal noise [B, *shape], row i drawn from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def uniform(keys, shape, dtype=jnp.float32):
    """Uniform noise in [0, 1), [B, *shape], row i drawn from keys[i]."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)


@dataclasses.dataclass(frozen=True)
class Rngs:
    """The random streams of one step, as a loss sees them: `rngs("latent")` -> keys [B].

    Attributes:
      root: the run's root key, never advanced.
      step: int32 scalar.
      index: int32 [B], what tells the examples apart: the place in the global batch in training,
        the place in the dataset in evaluation.
    """

    root: jax.Array
    step: jax.Array
    index: jax.Array

    def __call__(self, name):
        """One key an example, [B], of the stream `name`."""
        return per_example(stream(self.root, name, self.step), self.index)

    def layer(self, name):
        """One key for a layer that draws for the whole batch (linen's Dropout).

        Under pmap each device has its own, so this noise alone depends on the layout.
        """
        return jax.random.fold_in(stream(self.root, name, self.step), self.index[0])
