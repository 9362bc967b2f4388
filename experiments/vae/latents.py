"""Pictures of a latent space: the plane, traversals, interpolations, temperatures, classes."""

from collections.abc import Callable

import jax
import numpy as np
from scipy import stats

from genjax import plots
from genjax.typing import AnyArray, Array, Float, Key, Num, UInt8

MANIFOLD_SIDE = 30
MAX_TRAVERSED = 20
TRAVERSAL = np.linspace(-3.0, 3.0, 11)  # standard deviations of the prior
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)
NUM_PATHS = 3
COLUMNS = 10

# (z [N, D], y [N, K] = None) -> uint8 images [N, H, W, C].
ImagesOf = Callable[..., UInt8[np.ndarray, "n h w c"]]
Picture = UInt8[np.ndarray, "height width c"]


def linear_path(
    a: Num[np.ndarray, " d"], b: Num[np.ndarray, " d"], steps: int
) -> Num[np.ndarray, "steps d"]:
    """Returns points from a to b in equal steps on the line between them."""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (1 - t) * a + t * b


def spherical_path(
    a: Num[np.ndarray, " d"], b: Num[np.ndarray, " d"], steps: int
) -> Num[np.ndarray, "steps d"]:
    """Returns points from a to b on an arc (White 2016), which keeps a normal's typical length.

    Where a and b have the same direction, or opposite ones, the path is the line.
    """
    cosine = np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return linear_path(a, b, steps)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def manifold(images_of: ImagesOf) -> Picture:
    """Draws the plane of a two-dimensional latent, in equal steps of the prior's quantiles."""
    u = stats.norm.ppf((np.arange(MANIFOLD_SIDE) + 0.5) / MANIFOLD_SIDE)
    z = np.stack(np.meshgrid(u, -u), axis=-1).reshape(-1, 2)
    return plots.grid(images_of(z), MANIFOLD_SIDE, padding=1)


def traversal(images_of: ImagesOf, z: Float[np.ndarray, " d"]) -> Picture:
    """Draws a row for each of the first latents: it goes from -3 to 3, the others stay at z."""
    rows = min(len(z), MAX_TRAVERSED)
    moved = np.tile(z, (rows, len(TRAVERSAL), 1))
    moved[np.arange(rows), :, np.arange(rows)] = TRAVERSAL
    return plots.grid(images_of(moved.reshape(-1, len(z))), len(TRAVERSAL))


def interpolation(images_of: ImagesOf, ends: Float[np.ndarray, "n d"]) -> Picture:
    """Draws two rows for each pair of consecutive `ends`: along the line, then along the arc."""
    paths = [
        path(a, b, COLUMNS)
        for a, b in zip(ends[::2], ends[1::2])
        for path in (linear_path, spherical_path)
    ]
    return plots.grid(images_of(np.concatenate(paths)), COLUMNS)


def pictures(
    images_of: ImagesOf,
    means: Float[np.ndarray, "n d"],
    prior_z: Callable[[Key[Array, " m"], float], Float[np.ndarray, "m d"]],
    num_classes: int,
) -> dict[str, Picture]:
    """Draws the pictures of a latent space.

    Args:
      images_of: (z [N, D], y [N, K]=None) -> uint8 images.
      means: posterior means of some examples; N is at least 2.
      prior_z: (keys [M], temperature) -> z [M, D].
      num_classes: K, 0 for a model without classes.

    Returns:
      Pictures by name.
    """
    keys = jax.random.split(jax.random.key(0), COLUMNS)
    by_temperature = [prior_z(keys, t) for t in TEMPERATURES]
    drawn = {
        "traversal": traversal(images_of, means[0]),
        "interpolation": interpolation(images_of, means[: 2 * NUM_PATHS]),
        "temperatures": plots.grid(images_of(np.concatenate(by_temperature)), COLUMNS),
    }
    if num_classes:
        z = np.repeat(by_temperature[-1], num_classes, axis=0)
        y = np.tile(np.eye(num_classes, dtype=np.float32), (COLUMNS, 1))
        drawn["classes"] = plots.grid(images_of(z, y), num_classes)
    elif means.shape[1] == 2:
        drawn["manifold"] = manifold(images_of)
    return drawn


def scatter(values: dict[str, AnyArray], class_names: tuple[str, ...]) -> Picture:
    """Draws posterior means in the two latents that vary most, coloured by class.

    Args:
      values: "posterior_mean" [N, D] and "label" [N].
      class_names: of the labels.
    """
    means = values["posterior_mean"]
    if means.shape[1] == 1:
        means = np.concatenate([means, np.zeros_like(means)], axis=1)
    first, second = sorted(np.argsort(-np.var(means, axis=0), kind="stable")[:2])
    names = (f"posterior mean of latent {first}", f"of latent {second}")
    return plots.scatter(means[:, [first, second]], values["label"], class_names, names)
