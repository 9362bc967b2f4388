"""From uint8 pixels to what a network sees: on the device, keyed, one key an example.

Every function takes images [B, H, W, C] and keys [B] and treats each example by its own key.
"""

import dataclasses

import jax
import jax.numpy as jnp

from genjax import rng

# A static binarisation is part of the data: one fixed draw for each pixel, the same in every run.
STATIC_BINARIZATION_KEY = 0


def unit(images, keys=None):
    """uint8 -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def symmetric(images, keys=None):
    """uint8 -> float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def dequantized(images, keys):
    """uint8 -> float32 in [0, 1), (x + u) / 256 with u uniform in [0, 1) (Theis et al. 2016)."""
    return (images.astype(jnp.float32) + rng.uniform(keys, images.shape[1:])) / 256.0


def binarized(images, keys):
    """uint8 -> float32 in {0, 1}: each pixel is 1 with probability x / 255."""
    return (rng.uniform(keys, images.shape[1:]) < unit(images)).astype(jnp.float32)


def random_flip(images, keys):
    """Mirrors each image left to right with probability 1/2."""
    flip = rng.uniform(keys, (1, 1, 1)) < 0.5
    return jnp.where(flip, images[:, :, ::-1, :], images)


def random_crop(images, keys, padding):
    """Pads by reflection with `padding` pixels and crops each image at a place of its own."""
    _, height, width, channels = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around, mode="reflect")

    def crop(image, key):
        y, x = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (y, x, 0), (height, width, channels))

    return jax.vmap(crop)(padded, keys)


# What a pixel becomes: config.data.pixels.
PIXELS = {
    "unit": unit,
    "symmetric": symmetric,
    "dequantized": dequantized,
    "binarized_dynamic": binarized,  # a new draw every step
    "binarized_static": binarized,  # one draw for ever
}


@dataclasses.dataclass(frozen=True)
class Transform:
    """What happens to a batch on the device before the loss sees it.

    Attributes:
      pixels: a name in `PIXELS`. Evaluation binarises statically whichever way training does.
      flip: mirror left to right at random (training only).
      crop_padding: pixels of reflection padding for random crops (training only), 0 for none.
    """

    pixels: str = "unit"
    flip: bool = False
    crop_padding: int = 0

    def __call__(self, batch, rngs, train):
        """Returns the batch with "image" float32 [B, H, W, C]; `rngs` is a `genjax.rng.Rngs`."""
        images = batch["image"]
        if train and self.crop_padding:
            images = random_crop(images, rngs("crop"), self.crop_padding)
        if train and self.flip:
            images = random_flip(images, rngs("flip"))
        if self.pixels == "binarized_static" or self.pixels == "binarized_dynamic" and not train:
            keys = rng.per_example(jax.random.key(STATIC_BINARIZATION_KEY), batch["index"])
        else:
            keys = rngs("pixels")
        return {**batch, "image": PIXELS[self.pixels](images, keys)}
