"""Differentiable augmentation (Zhao et al. 2020, https://arxiv.org/abs/2006.10738).

The discriminator is trained on augmented images only, real and generated, and the generator through
the same operations. Images are [B, H, W, C] in [-1, 1], with one key for each.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from genjax.data.transforms import window
from genjax.typing import Array, Float, Key

Image = Float[Array, "h w c"]


def brightness(image: Image, key: Key[Array, ""]) -> Image:
    """Adds a number in [-1/2, 1/2)."""
    return image + jax.random.uniform(key) - 0.5


def saturation(image: Image, key: Key[Array, ""]) -> Image:
    """Scales the differences of the channels from their mean by a number in [0, 2)."""
    mean = jnp.mean(image, axis=-1, keepdims=True)
    return mean + (image - mean) * 2 * jax.random.uniform(key)


def contrast(image: Image, key: Key[Array, ""]) -> Image:
    """Scales the differences of the pixels from the image's mean by a number in [1/2, 3/2)."""
    mean = jnp.mean(image)
    return mean + (image - mean) * (jax.random.uniform(key) + 0.5)


def translation(image: Image, key: Key[Array, ""], ratio: float = 1 / 8) -> Image:
    """Shifts by up to `ratio` of each side, with zeros from outside."""
    height, width, _ = image.shape
    pads = [int(side * ratio + 0.5) for side in (height, width)]
    padded = jnp.pad(image, [(p, p) for p in pads] + [(0, 0)])
    limits = 2 * jnp.array(pads) + 1
    y, x = jax.random.randint(key, (2,), 0, limits)
    return window(padded, y, x, (height, width))


def cutout(image: Image, key: Key[Array, ""], ratio: float = 1 / 2) -> Image:
    """Zeroes a rectangle of `ratio` of each side, with its centre anywhere in the image."""
    inside = True
    for axis, axis_key in enumerate(jax.random.split(key)):
        side = image.shape[axis]
        size = int(side * ratio + 0.5)
        start = jax.random.randint(axis_key, (), 0, side + 1 - size % 2) - size // 2
        index = jnp.arange(side).reshape([-1 if a == axis else 1 for a in range(3)])
        inside &= (index >= start) & (index < start + size)
    return jnp.where(inside, 0.0, image)


POLICIES = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}


def diffaugment(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    policy: Sequence[str] = ("color", "translation", "cutout"),
) -> Float[Array, "b h w c"]:
    """Augments each image by its key; `policy` names groups of operations, in `POLICIES`."""
    for number, name in enumerate(policy):
        for i, operation in enumerate(POLICIES[name]):
            own = jax.vmap(functools.partial(jax.random.fold_in, data=10 * number + i))(keys)
            images = jax.vmap(operation)(images, own)
    return images
