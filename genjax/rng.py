"""Random numbers as a pure function of (seed, stream name, step, example).

No key is passed along by the loop of the host: a stream is folded out of the root key by its name,
a step out of the stream, an example out of the step. Because every example of the global batch has
a key of its own, noise depends neither on the number of devices nor on the layout of the batch over
them, and image i of a seed is the same image for every batch size.
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from genjax.typing import AnyArray, Array, Bool, Float, Int, Key


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
        """Returns one key for a layer that draws for the global batch as one (`layers.Dropout`)."""
        return jax.random.fold_in(stream(self.root, name, self.step), 0)


# Which rows of the global batch the traced code works on, and how many rows that has.
_ROWS: ContextVar[tuple[Array, int] | None] = ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_of_batch(index: Int[Array, " b"], total: int) -> Iterator[None]:
    """Tells layers that draw for the global batch which of its rows they are given.

    Args:
      index: positions in the global batch, traced or not.
      total: rows of the global batch.
    """
    token = _ROWS.set((index, total))
    try:
        yield
    finally:
        _ROWS.reset(token)


def bernoulli_rows(key: Key[Array, ""], p: float, shape: Sequence[int]) -> Bool[Array, "b *rest"]:
    """Draws true with probability `p`, [b, ...]: the rows of `rows_of_batch` of a global draw.

    Without `rows_of_batch` the b rows are the batch. A device or a part of a batch thus has the
    same numbers for an example as a step that works on all of them at once.

    Raises:
      ValueError: b is not the number of rows that `rows_of_batch` states.
    """
    index, total = _ROWS.get() or (None, shape[0])
    if total == shape[0]:
        return jax.random.bernoulli(key, p, shape)
    if len(index) != shape[0]:
        raise ValueError(f"noise for {shape[0]} rows, but this part of the batch has {len(index)}")
    return jax.random.bernoulli(key, p, (total, *shape[1:]))[index]
