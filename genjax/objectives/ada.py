"""Adaptive discriminator augmentation (Karras et al. 2020a, https://arxiv.org/abs/2006.06676).

Every operation happens with probability p. A feedback changes p so that the confidence of the
discriminator on real images, r_t = E[sign D(x)], stays at a target. Operations and their strengths
are those of appendix B; geometry is one affine map with bilinear sampling (in the paper: low-pass
filtered at twice the size). Images are [B, H, W, C] in [-1, 1], with one key for each.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from genjax.devices import platform
from genjax.typing import Array, Float, Key, ModelState

NUM_OPERATIONS = 15
POLICIES = ("blit", "geometry", "color")

# Of coordinates: half precision would move the edge of an image of 256 pixels by up to a pixel.
_PRECISION = jax.lax.Precision.HIGHEST

# number of an operation, its probability (by default p) -> (a uniform number, a normal number,
# whether the operation happens).
Draw = Callable[..., tuple[Array, Array, Array]]


def _draws(key, p) -> Draw:
    """Draws the random numbers of all operations."""
    u, v, coin = jax.random.uniform(key, (3, NUM_OPERATIONS))
    normal = jnp.sqrt(2.0) * jax.lax.erf_inv(2 * jnp.maximum(v, 2.0**-24) - 1)
    return lambda number, p=p: (u[number], normal[number], coin[number] < p)


# --- Geometry: maps [3, 3] of homogeneous pixel coordinates (y, x, 1) about the centre ------------


def _after(second, first):
    """Returns the map that does `first`, then `second`."""
    return jnp.matmul(second, first, precision=_PRECISION)


def _rotation(angle):
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _scaling(y, x):
    return jnp.diag(jnp.stack([y, x, jnp.ones(())]))


def _shift(y, x):
    return jnp.eye(3).at[0, 2].set(y).at[1, 2].set(x)


def _blit(draw: Draw, height: int, width: int) -> Array:
    """Draws mirroring, quarter turns, shifts by whole pixels of up to an eighth of the side."""
    u, _, on = draw(0)
    total = _scaling(jnp.ones(()), jnp.where(on & (u < 0.5), -1.0, 1.0))
    u, _, on = draw(1)
    quarter = jnp.where(on, jnp.floor(4 * u), 0).astype(int)
    c, s = jnp.array([1.0, 0.0, -1.0, 0.0])[quarter], jnp.array([0.0, 1.0, 0.0, -1.0])[quarter]
    turn = jnp.eye(3).at[:2, :2].set(jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])]))
    total = _after(turn, total)
    uy, _, on = draw(2)
    ux, _, _ = draw(3)
    by = lambda u, side: jnp.where(on, jnp.round((2 * u - 1) * side / 8), 0.0)
    return _after(_shift(by(uy, height), by(ux, width)), total)


def _geometry(draw: Draw, p: float | int | Array, height: int, width: int) -> Array:
    """Draws scaling, rotation before and after another scaling along one axis, shifts."""
    p_rotation = 1 - jnp.sqrt(jnp.maximum(1 - p, 0.0))  # of each: one of them happens with p
    _, n, on = draw(4)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _scaling(scale, scale)
    u, _, on = draw(5, p_rotation)
    total = _after(_rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)), total)
    _, n, on = draw(6)
    scale = jnp.where(on, jnp.exp2(0.2 * n), 1.0)
    total = _after(_scaling(1 / scale, scale), total)
    u, _, on = draw(7, p_rotation)
    total = _after(_rotation(jnp.where(on, (2 * u - 1) * jnp.pi, 0.0)), total)
    _, ny, on = draw(8)
    _, nx, _ = draw(9)
    by = lambda n, side: jnp.where(on, 0.125 * n * side, 0.0)
    return _after(_shift(by(ny, height), by(nx, width)), total)


def warp(image: Float[Array, "h w c"], matrix: Float[Array, "3 3"]) -> Float[Array, "h w c"]:
    """Moves the image by `matrix` about its centre, mirrored at the edges."""
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    (a, b), (c, d) = matrix[:2, :2]
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    y, x = jnp.meshgrid(
        jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij"
    )
    from_shift = jnp.stack([y - matrix[0, 2], x - matrix[1, 2]])
    moved = jnp.einsum("ij,jhw->ihw", inverse, from_shift, precision=_PRECISION)
    y, x = moved + centre[:, None, None]
    return _sample(image, _mirrored(y, height), _mirrored(x, width))


def _mirrored(position, length):
    """Returns where in [0, length - 1] a position is that runs back at the first and last pixel."""
    last = max(length - 1, 1)
    return last - jnp.abs(last - position % (2 * last))


def _sample(image, y, x):
    """Returns the bilinear samples of an image [H, W, C] at positions [H, W] inside of it."""
    height, width, channels = image.shape
    if platform() == "cpu" or height * width > 64**2:
        sample = lambda plane: map_coordinates(plane, [y, x], order=1, mode="nearest")
        return jax.vmap(sample, in_axes=2, out_axes=2)(image)
    # Accelerators gather one element at a time: as products with the weights of rows and columns.
    weights = lambda at, length: jnp.maximum(1 - jnp.abs(at[..., None] - jnp.arange(length)), 0)
    columns = image.transpose(1, 0, 2).reshape(width, height * channels)
    rows = jnp.matmul(weights(x, width), columns, precision=_PRECISION)
    rows = rows.reshape(height, width, height, channels)
    return jnp.sum(weights(y, height)[..., None] * rows, axis=2)


# --- Colour ---------------------------------------------------------------------------------------


def recolor(image: Float[Array, "h w c"], draw: Draw) -> Float[Array, "h w c"]:
    """Changes brightness, contrast, sign, hue, saturation of an image of 1 or 3 channels."""
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
    colour = image - grey(image)
    # Rodrigues' formula of a rotation about the grey axis.
    image = grey(image) + colour * jnp.cos(angle) + across * jnp.sin(angle)
    _, n, on = draw(14)
    return grey(image) + (image - grey(image)) * jnp.where(on, jnp.exp2(n), 1.0)


def augment(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    p: float | int | Float[Array, ""],
    policy: Sequence[str] = POLICIES,
) -> Float[Array, "b h w c"]:
    """Augments each image by its key, each operation with probability p.

    `policy` names groups of operations, in `POLICIES`.
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
            image = warp(image, functools.reduce(lambda a, b: _after(b, a), moves))
        return recolor(image, draw) if "color" in policy else image

    return jax.vmap(one)(images, keys)


# --- Feedback -------------------------------------------------------------------------------------


def init_feedback(p: float | int = 0.0) -> ModelState:
    """Returns {"p", "signs", "steps"}: signs sums E[sign D(x)] since p last changed, over steps."""
    zero = jnp.zeros(())
    return {"p": jnp.full((), p, jnp.float32), "signs": zero, "steps": zero}


def update_feedback(
    state: ModelState,
    mean_sign: float | Float[Array, ""],
    batch_size: int,
    *,
    target: float | int,
    interval: int,
    speed_images: float | int,
) -> ModelState:
    """Returns the state after a step of the discriminator.

    Args:
      state: of `init_feedback`.
      mean_sign: E[sign D(x)] over the real images of the step.
      batch_size: number of these.
      target: of r_t; p rises above it and falls below it, at the same rate for any distance.
      interval: steps between changes of p.
      speed_images: number of images in which p goes from 0 to 1.
    """
    signs, steps = state["signs"] + mean_sign, state["steps"] + 1
    due = steps >= interval
    move = jnp.sign(signs / steps - target) * batch_size * steps / speed_images
    p = jnp.clip(state["p"] + jnp.where(due, move, 0.0), 0.0, 1.0)
    reset = lambda x: jnp.where(due, 0.0, x)
    return {"p": p, "signs": reset(signs), "steps": reset(steps)}
