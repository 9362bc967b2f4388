"""Adaptive discriminator augmentation (Karras et al. 2020a, https://arxiv.org/abs/2006.06676).

Every operation happens with probability p, which a feedback holds where the discriminator is as
sure of real images as it may be: r_t = E[sign D(x)] at a target. Operations and their strengths are
those of appendix B; geometry is one affine map with bilinear sampling (there: low-pass filtered at
twice the size). Images are [B, H, W, C] in [-1, 1], one key for each.
"""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def _draw(key, number, p):
    """(a uniform number, a normal one, whether to do it) of operation `number`."""
    uniform, normal, coin = jax.random.split(jax.random.fold_in(key, number), 3)
    happens = jax.random.uniform(coin) < p
    return jax.random.uniform(uniform), jax.random.normal(normal), happens


# Maps of homogeneous pixel coordinates (y, x, 1) about the image's centre, [3, 3].
def _rotation(angle):
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _scaling(y, x):
    return jnp.diag(jnp.stack([y, x, jnp.ones(())]))


def _shift(y, x):
    return jnp.eye(3).at[0, 2].set(y).at[1, 2].set(x)


def _blit(key, p, height, width):
    """Mirroring, quarter turns, shifts by whole pixels of up to an eighth."""
    u, _, on = _draw(key, 0, p)
    total = _scaling(jnp.ones(()), jnp.where(on & (u < 0.5), -1.0, 1.0))
    u, _, on = _draw(key, 1, p)
    quarter = jnp.where(on, jnp.floor(4 * u), 0).astype(int)
    c, s = jnp.array([1.0, 0.0, -1.0, 0.0])[quarter], jnp.array([0.0, 1.0, 0.0, -1.0])[quarter]
    total = jnp.eye(3).at[:2, :2].set(jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])) @ total
    uy, _, on = _draw(key, 2, p)
    ux, _, _ = _draw(key, 3, p)
    by = lambda u, side: jnp.where(on, jnp.round((2 * u - 1) * side / 8), 0.0)
    return _shift(by(uy, height), by(ux, width)) @ total


def _geometry(key, p, height, width):
    """Scaling, rotation before and after another scaling along one axis, shifts."""
    _, n, on = _draw(key, 4, p)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _scaling(scale, scale)
    p_rotation = 1 - jnp.sqrt(jnp.maximum(1 - p, 0.0))  # either of two: p
    u, _, on = _draw(key, 5, p_rotation)
    total = _rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)) @ total
    _, n, on = _draw(key, 6, p)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _scaling(1 / scale, scale) @ total
    u, _, on = _draw(key, 7, p_rotation)
    total = _rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)) @ total
    _, ny, on = _draw(key, 8, p)
    _, nx, _ = _draw(key, 9, p)
    by = lambda n, side: jnp.where(on, 0.125 * n * side, 0.0)
    return _shift(by(ny, height), by(nx, width)) @ total


def warp(image, matrix):
    """The image [H, W, C] moved by `matrix` [3, 3] about its centre, mirrored at the edges."""
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    (a, b), (c, d) = matrix[:2, :2]
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    y, x = jnp.meshgrid(jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij")
    from_shift = jnp.stack([y - matrix[0, 2], x - matrix[1, 2]])
    where = list(jnp.einsum("ij,jhw->ihw", inverse, from_shift) + centre[:, None, None])
    sample = lambda plane: map_coordinates(plane, where, order=1, mode="mirror")
    return jax.vmap(sample, in_axes=2, out_axes=2)(image)


def _color(key, p):
    """Brightness, contrast, negative, hue, saturation: a map of (r, g, b, 1), [4, 4]."""
    grey = jnp.array([1.0, 1.0, 1.0, 0.0]) / jnp.sqrt(3.0)
    eye, axis = jnp.eye(4), jnp.outer(grey, grey)
    _, n, on = _draw(key, 10, p)
    total = eye.at[:3, 3].set(jnp.where(on, 0.2 * n, 0.0))
    _, n, on = _draw(key, 11, p)
    c = jnp.where(on, jnp.exp2(0.5 * n), 1.0)
    total = jnp.diag(jnp.stack([c, c, c, jnp.ones(())])) @ total
    u, _, on = _draw(key, 12, p)
    total = (eye - 2 * axis * jnp.where(on & (u < 0.5), 1.0, 0.0)) @ total
    u, _, on = _draw(key, 13, p)
    angle = jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)
    g = 1 / jnp.sqrt(3.0)
    cross = jnp.zeros((4, 4)).at[:3, :3].set(jnp.array([[0, -g, g], [g, 0, -g], [-g, g, 0]]))
    # Rodrigues: about the grey axis.
    turn = eye + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * cross @ cross
    total = turn @ total
    _, n, on = _draw(key, 14, p)
    s = jnp.where(on, jnp.exp2(n), 1.0)
    homogeneous = jnp.diag(jnp.array([0.0, 0.0, 0.0, 1.0]))
    return (axis + homogeneous + (eye - axis - homogeneous) * s) @ total


def recolor(image, matrix):
    """Applies a map of (r, g, b, 1) to [H, W, 3], or its mean over colours to [H, W, 1]."""
    if image.shape[-1] == 1:
        scale, offset = jnp.mean(jnp.sum(matrix[:3, :3], axis=1)), jnp.mean(matrix[:3, 3])
        return image * scale + offset
    return image @ matrix[:3, :3].T + matrix[:3, 3]


POLICIES = ("blit", "geometry", "color")


def augment(images, keys, p, policy=POLICIES):
    """Augments each image [B, H, W, C] by its key [B], each operation with probability p (scalar).

    `policy` are names in `POLICIES`: groups of operations.
    """
    _, height, width, _ = images.shape

    def one(image, key):
        moves = [
            make(key, p, height, width)
            for name, make in (("blit", _blit), ("geometry", _geometry))
            if name in policy
        ]
        if moves:
            image = warp(image, functools.reduce(lambda a, b: b @ a, moves))
        return recolor(image, _color(key, p)) if "color" in policy else image

    return jax.vmap(one)(images, keys)


def init_feedback(p=0.0):
    """p, and the signs of logits seen since it was last changed: sum and number of steps."""
    zero = jnp.zeros(())
    return {"p": jnp.full((), p, jnp.float32), "signs": zero, "steps": zero}


def update_feedback(state, mean_sign, batch_size, *, target, interval, speed_images):
    """The state after a discriminator step.

    Args:
      state: of `init_feedback`.
      mean_sign: E[sign D(x)] over the step's real images, a scalar.
      batch_size: of these.
      target: of r_t; above it p rises, below it falls, by as much whatever the distance.
      interval: steps between changes of p.
      speed_images: in so many images p goes from 0 to 1.
    """
    signs, steps = state["signs"] + mean_sign, state["steps"] + 1
    due = steps >= interval
    move = jnp.sign(signs / steps - target) * batch_size * steps / speed_images
    p = jnp.clip(state["p"] + jnp.where(due, move, 0.0), 0.0, 1.0)
    keep = lambda x: jnp.where(due, 0.0, x)
    return {"p": p, "signs": keep(signs), "steps": keep(steps)}
