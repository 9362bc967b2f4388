"""Differentiable augmentation (Zhao et al. 2020, https://arxiv.org/abs/2006.10738).

The discriminator sees nothing but augmented images, real and made, and the generator is trained
through the same operations; images are [B, H, W, C] in [-1, 1], one key for each.
"""

import functools

import jax
import jax.numpy as jnp


def brightness(image, key):
    """Adds a number in [-1/2, 1/2)."""
    return image + jax.random.uniform(key) - 0.5


def saturation(image, key):
    """Scales what the channels differ from their mean by, by a number in [0, 2)."""
    mean = jnp.mean(image, axis=-1, keepdims=True)
    return mean + (image - mean) * 2 * jax.random.uniform(key)


def contrast(image, key):
    """Scales what pixels differ from the image's mean by, by a number in [1/2, 3/2)."""
    mean = jnp.mean(image)
    return mean + (image - mean) * (jax.random.uniform(key) + 0.5)


def translation(image, key, ratio=1 / 8):
    """Shifts by up to `ratio` of each side; what comes in is 0."""
    height, width, channels = image.shape
    pads = [int(side * ratio + 0.5) for side in (height, width)]
    padded = jnp.pad(image, [(p, p) for p in pads] + [(0, 0)])
    limits = 2 * jnp.array(pads) + 1
    y, x = jax.random.randint(key, (2,), 0, limits)
    return jax.lax.dynamic_slice(padded, (y, x, 0), (height, width, channels))


def cutout(image, key, ratio=1 / 2):
    """Blanks a rectangle of `ratio` of each side, whose centre is anywhere in the image."""
    inside = True
    for axis, one in enumerate(jax.random.split(key)):
        side = image.shape[axis]
        size = int(side * ratio + 0.5)
        start = jax.random.randint(one, (), 0, side + 1 - size % 2) - size // 2
        place = jnp.arange(side).reshape([-1 if a == axis else 1 for a in range(3)])
        inside &= (place >= start) & (place < start + size)
    return jnp.where(inside, 0.0, image)


POLICIES = {
    "color": (brightness, saturation, contrast),
    "translation": (translation,),
    "cutout": (cutout,),
}


def diffaugment(images, keys, policy=("color", "translation", "cutout")):
    """Augments each image [B, H, W, C] by its key [B]; `policy` are names in `POLICIES`."""
    for number, name in enumerate(policy):
        for i, operation in enumerate(POLICIES[name]):
            own = jax.vmap(functools.partial(jax.random.fold_in, data=10 * number + i))(keys)
            images = jax.vmap(operation)(images, own)
    return images
