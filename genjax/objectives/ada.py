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

NUM_OPERATIONS = 15


def _draws(key, p):
    """number -> (a uniform number, a normal one, whether to do it) of an operation."""
    u, v, coin = jax.random.uniform(key, (3, NUM_OPERATIONS))
    normal = jnp.sqrt(2.0) * jax.lax.erf_inv(2 * jnp.maximum(v, 2.0**-24) - 1)
    return lambda number, p=p: (u[number], normal[number], coin[number] < p)


# Maps of homogeneous pixel coordinates (y, x, 1) about the image's centre, [3, 3].
def _rotation(angle):
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _scaling(y, x):
    return jnp.diag(jnp.stack([y, x, jnp.ones(())]))


def _shift(y, x):
    return jnp.eye(3).at[0, 2].set(y).at[1, 2].set(x)


def _blit(draw, height, width):
    """Mirroring, quarter turns, shifts by whole pixels of up to an eighth."""
    u, _, on = draw(0)
    total = _scaling(jnp.ones(()), jnp.where(on & (u < 0.5), -1.0, 1.0))
    u, _, on = draw(1)
    quarter = jnp.where(on, jnp.floor(4 * u), 0).astype(int)
    c, s = jnp.array([1.0, 0.0, -1.0, 0.0])[quarter], jnp.array([0.0, 1.0, 0.0, -1.0])[quarter]
    total = jnp.eye(3).at[:2, :2].set(jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])) @ total
    uy, _, on = draw(2)
    ux, _, _ = draw(3)
    by = lambda u, side: jnp.where(on, jnp.round((2 * u - 1) * side / 8), 0.0)
    return _shift(by(uy, height), by(ux, width)) @ total


def _geometry(draw, p, height, width):
    """Scaling, rotation before and after another scaling along one axis, shifts."""
    p_rotation = 1 - jnp.sqrt(jnp.maximum(1 - p, 0.0))  # of each: one of them happens with p
    _, n, on = draw(4)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _scaling(scale, scale)
    u, _, on = draw(5, p_rotation)
    total = _rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)) @ total
    _, n, on = draw(6)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _scaling(1 / scale, scale) @ total
    u, _, on = draw(7, p_rotation)
    total = _rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)) @ total
    _, ny, on = draw(8)
    _, nx, _ = draw(9)
    by = lambda n, side: jnp.where(on, 0.125 * n * side, 0.0)
    return _shift(by(ny, height), by(nx, width)) @ total


def warp(image, matrix):
    """The image [H, W, C] moved by `matrix` [3, 3] about its centre, mirrored at the edges."""
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    (a, b), (c, d) = matrix[:2, :2]
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    y, x = jnp.meshgrid(
        jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij"
    )
    from_shift = jnp.stack([y - matrix[0, 2], x - matrix[1, 2]])
    where = list(jnp.einsum("ij,jhw->ihw", inverse, from_shift) + centre[:, None, None])
    sample = lambda plane: map_coordinates(plane, where, order=1, mode="mirror")
    return jax.vmap(sample, in_axes=2, out_axes=2)(image)


def recolor(image, draw):
    """Brightness, contrast, negative, hue, saturation of [H, W, 1 or 3]."""
    _, n, on = draw(10)
    image = image + jnp.where(on, 0.2 * n, 0.0)
    _, n, on = draw(11)
    image = image * jnp.where(on, jnp.exp2(0.5 * n), 1.0)
    grey = lambda image: jnp.mean(image, axis=-1, keepdims=True)
    u, _, on = draw(12)
    image = image - jnp.where(on & (u < 0.5), 2.0, 0.0) * grey(image)
    if image.shape[-1] == 1:
        return image  # grey has neither hue nor saturation
    u, _, on = draw(13)
    angle = jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)
    across = (jnp.roll(image, 1, -1) - jnp.roll(image, -1, -1)) / jnp.sqrt(3.0)
    rest = image - grey(image)
    image = grey(image) + rest * jnp.cos(angle) + across * jnp.sin(angle)  # Rodrigues
    _, n, on = draw(14)
    return grey(image) + (image - grey(image)) * jnp.where(on, jnp.exp2(n), 1.0)


POLICIES = ("blit", "geometry", "color")


def augment(images, keys, p, policy=POLICIES):
    """Augments each image [B, H, W, C] by its key [B], each operation with probability p (scalar).

    `policy` are names in `POLICIES`: groups of operations.
    """
    _, height, width, _ = images.shape

    def one(image, key):
        draw = _draws(key, p)
        moves = []
        if "blit" in policy:
            moves.append(_blit(draw, height, width))
        if "geometry" in policy:
            moves.append(_geometry(draw, p, height, width))
        if moves:
            image = warp(image, functools.reduce(lambda a, b: b @ a, moves))
        return recolor(image, draw) if "color" in policy else image

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
