"""Pictures of a flow: what becomes of latents that are changed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genjax import plots
from genjax.typing import Array, Float, Int, UInt8

NUM_SHOWN = 8  # images, or pairs of them
NUM_STEPS = 9  # from one image to another
TEMPERATURES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)

Latents = tuple[Float[Array, "b ..."], ...]
Decode = Callable[[Latents, Int[Array, " b"] | None], Float[Array, "b h w c"]]


def draw_pictures(
    latents: Latents,
    label: Int[Array, " b"] | None,
    images: Float[Array, "b h w c"],
    decode: Decode,
) -> dict[str, UInt8[np.ndarray, "height width c"]]:
    """Draws every picture of a flow.

    Args:
      latents: of the images.
      label: their classes.
      images: in [0, 1].
      decode: (latents, classes) -> images in [0, 1].
    """
    first = lambda x: None if x is None else x[:NUM_SHOWN]
    latents, label, images = tuple(map(first, latents)), first(label), first(images)
    noise = draw_latents(jax.random.key(0), latents)
    by_temperature = [decode(scaled(noise, t), label) for t in TEMPERATURES]
    restored = decode(latents, label)
    pictures = {
        "interpolations": _interpolations(latents, label, decode),
        "reconstructions": _rows([images, restored, jnp.abs(restored - images)]),
        "temperatures": _rows(by_temperature),
    }
    if len(latents) > 1:
        pictures["scales"] = _scales(latents, noise, label, images, decode)
    return pictures


def draw_latents(key: Array, like: Latents) -> Latents:
    """Draws standard normal latents of the shapes of others."""
    keys = jax.random.split(key, len(like))
    return tuple(jax.random.normal(k, z.shape) for k, z in zip(keys, like))


def scaled(latents: Latents, temperature: float) -> Latents:
    """Multiplies latents by a temperature."""
    return tuple(temperature * z for z in latents)


def interpolated(start: Latents, end: Latents, share: float | Float[np.ndarray, ""]) -> Latents:
    """Returns latents between two, of the norm of normal noise: share 0 is the start, 1 the end."""
    norm = np.sqrt(share**2 + (1 - share) ** 2)
    return tuple(((1 - share) * a + share * b) / norm for a, b in zip(start, end))


def _interpolations(latents, label, decode):
    """A row for each image: from it to the next one, in latents; the classes are those of it."""
    end = tuple(jnp.roll(z, -1, axis=0) for z in latents)
    shares = np.linspace(0, 1, NUM_STEPS)
    columns = [decode(interpolated(latents, end, s), label) for s in shares]
    return plots.grid(
        plots.to_uint8(np.stack(columns, 1)).reshape(-1, *columns[0].shape[1:]), NUM_STEPS
    )


def _scales(latents, noise, label, images, decode):
    """Rows: the images; with the finest latents drawn again; with those of two scales; ..."""
    rows = [images]
    for count in range(1, len(latents)):
        rows.append(decode((*noise[:count], *latents[count:]), label))
    return _rows(rows)


def _rows(rows):
    """Arranges rows of images."""
    return plots.grid(plots.to_uint8(np.concatenate([np.asarray(r) for r in rows])), len(rows[0]))
