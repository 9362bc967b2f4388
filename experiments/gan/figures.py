"""Figures of a GAN: walks between latents, a grid of classes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genjax import plots
from genjax.diffusion.editing import slerp
from genjax.typing import Array, Float, Key

NUM_WALKS, WALK_STEPS = 5, 10  # rows and columns of an interpolation
CLASS_ROWS, MAX_CLASSES = 8, 16  # rows and the most columns of a grid of classes


def interpolations(
    generate: Callable[[Array, np.ndarray], Array],
    latent_dim: int,
    num_classes: int,
    key: Key[Array, ""],
) -> dict[str, Float[Array, "n h w c"]]:
    """Generates walks between latents, straight and on the sphere, and a grid of classes.

    Args:
      generate: (latents [B, D], classes int32 [B]) -> images [B, H, W, C].
      latent_dim: D.
      num_classes: 0 for a generator without classes.
      key: of the latents.

    Returns:
      images by name, row by row.
    """
    ends = jax.random.normal(key, (2, NUM_WALKS, latent_dim))
    u = jnp.linspace(0.0, 1.0, WALK_STEPS)
    straight = lambda a, b, u: (1 - u) * a + u * b
    walks = lambda path: jax.vmap(jax.vmap(path, (None, None, 0)), (0, 0, None))(*ends, u)
    latents = {"walk_straight": walks(straight), "walk_sphere": walks(slerp)}
    rows = np.arange(NUM_WALKS) % max(num_classes, 1)
    labels = {name: np.repeat(rows, WALK_STEPS) for name in latents}
    if num_classes:
        columns = min(num_classes, MAX_CLASSES)
        z = jax.random.normal(jax.random.fold_in(key, 1), (CLASS_ROWS, 1, latent_dim))
        latents["classes"] = jnp.broadcast_to(z, (CLASS_ROWS, columns, latent_dim))
        labels["classes"] = np.tile(np.arange(columns), CLASS_ROWS)
    z = jnp.concatenate([z.reshape(-1, latent_dim) for z in latents.values()])
    images = generate(z, np.concatenate(list(labels.values())))
    counts = [len(own) for own in labels.values()]
    return dict(zip(labels, jnp.split(images, np.cumsum(counts)[:-1])))


def pictures(images: dict[str, Array], num_classes: int) -> dict[str, np.ndarray]:
    """Returns a grid for each of the images of `interpolations`, uint8 [H, W, C]."""
    columns = {"classes": min(num_classes, MAX_CLASSES)}
    return {
        name: plots.grid(plots.to_uint8(x), columns.get(name, WALK_STEPS))
        for name, x in images.items()
    }
