"""Pictures of a latent space: the plane, traversals, interpolations, temperatures, classes."""

import jax
import numpy as np
from scipy import stats

from genjax import plots

MANIFOLD_SIDE = 30
MAX_TRAVERSED = 20
TRAVERSAL = np.linspace(-3.0, 3.0, 11)  # standard deviations of the prior
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)
NUM_PATHS = 3
COLUMNS = 10


def linear_path(a, b, steps):
    """Points from a to b, [D] each, in equal steps: [steps, D]."""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (1 - t) * a + t * b


def spherical_path(a, b, steps):
    """The same along the arc between them (White 2016), which keeps a normal's typical length."""
    cosine = np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return linear_path(a, b, steps)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def manifold(images_of):
    """The decoded plane of a two-dimensional latent: equal steps of the prior's quantiles."""
    u = stats.norm.ppf((np.arange(MANIFOLD_SIDE) + 0.5) / MANIFOLD_SIDE)
    z = np.stack(np.meshgrid(u, -u), axis=-1).reshape(-1, 2)
    return plots.grid(images_of(z), MANIFOLD_SIDE, padding=1)


def traversal(images_of, z):
    """A row for each of the first latents of z [D], which alone moves from -3 to 3."""
    rows = min(len(z), MAX_TRAVERSED)
    moved = np.tile(z, (rows, len(TRAVERSAL), 1))
    moved[np.arange(rows), :, np.arange(rows)] = TRAVERSAL
    return plots.grid(images_of(moved.reshape(-1, len(z))), len(TRAVERSAL))


def interpolation(images_of, ends):
    """Pairs of rows between the pairs of `ends` [2 n, D]: along the line, then along the arc."""
    paths = [
        p(a, b, COLUMNS)
        for a, b in zip(ends[::2], ends[1::2])
        for p in (linear_path, spherical_path)
    ]
    return plots.grid(images_of(np.concatenate(paths)), COLUMNS)


def pictures(images_of, means, prior_z, num_classes):
    """The pictures of a latent space, by name.

    Args:
      images_of: (z [N, D], y [N, K]=None) -> uint8 images.
      means: posterior means of some examples, [N, D]; N is at least 2.
      prior_z: (keys [N], temperature) -> z [N, D].
      num_classes: K, 0 for a model without classes.
    """
    keys = jax.random.split(jax.random.key(0), COLUMNS)
    by_temperature = [prior_z(keys, t) for t in TEMPERATURES]
    found = {
        "traversal": traversal(images_of, means[0]),
        "interpolation": interpolation(images_of, means[: 2 * NUM_PATHS]),
        "temperatures": plots.grid(images_of(np.concatenate(by_temperature)), COLUMNS),
    }
    if num_classes:
        z = np.repeat(by_temperature[-1], num_classes, axis=0)
        y = np.tile(np.eye(num_classes, dtype=np.float32), (COLUMNS, 1))
        found["classes"] = plots.grid(images_of(z, y), num_classes)
    elif means.shape[1] == 2:
        found["manifold"] = manifold(images_of)
    return found


def scatter(values, class_names):
    """Posterior means in the two latents that vary most, coloured by class."""
    means = values["posterior_mean"]
    if means.shape[1] == 1:
        means = np.concatenate([means, np.zeros_like(means)], axis=1)
    first, second = sorted(np.argsort(-np.var(means, axis=0), kind="stable")[:2])
    names = (f"posterior mean of latent {first}", f"of latent {second}")
    return plots.scatter(means[:, [first, second]], values["label"], class_names, names)
