"""From uint8 pixels to what a network sees: on the device, keyed, one key an example.

Every function takes images [B, H, W, C] and keys [B] and treats each example by its own key.
"""

import dataclasses
import math

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


def integers(images, keys=None):
    """Codes, or pixels, as they are: int32."""
    return images.astype(jnp.int32)


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


def alternating_flip(images, keys, epochs):
    """Mirrors about half of the images in epoch 0, and each one every other epoch from then on.

    Every pair of epochs sees each image both ways (Jordan 2024, https://arxiv.org/abs/2404.00498).

    Args:
      images: [B, H, W, C].
      keys: [B], of the images themselves: the same in every epoch.
      epochs: int32 [B].
    """
    first = rng.uniform(keys, ()) < 0.5
    flip = first ^ (epochs % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1, :], images)


def random_crop(images, keys, padding):
    """Pads by reflection with `padding` pixels and crops each image at a place of its own."""
    _, height, width, channels = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around, mode="reflect")

    def crop(image, key):
        y, x = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (y, x, 0), (height, width, channels))

    return jax.vmap(crop)(padded, keys)


# How training images are mirrored: config.data.flip.
FLIPS = ("none", "random", "alternating")

# What a pixel becomes: config.data.pixels.
PIXELS = {
    "unit": unit,
    "symmetric": symmetric,
    "integers": integers,
    "dequantized": dequantized,
    "binarized_dynamic": binarized,  # a new draw every step
    "binarized_static": binarized,  # one draw for ever
}


@dataclasses.dataclass(frozen=True)
class Transform:
    """What happens to a batch on the device before the loss sees it.

    Attributes:
      pixels: a name in `PIXELS`. Evaluation binarises statically whichever way training does.
      flip: a name in `FLIPS` (training only).
      crop_padding: pixels of reflection padding for random crops (training only), 0 for none.
      batch_size, num_examples: of training, from which alternating flips know the epoch.
    """

    pixels: str = "unit"
    flip: str = "none"
    crop_padding: int = 0
    batch_size: int = 1
    num_examples: int = 1

    @property
    def _steps(self):
        """After so many steps an epoch and a batch end together ..."""
        return self.num_examples // math.gcd(self.num_examples, self.batch_size)

    @property
    def _epochs(self):
        """... after so many epochs."""
        return self.batch_size // math.gcd(self.num_examples, self.batch_size)

    def __call__(self, batch, rngs, train):
        """Returns the batch with "image" [B, H, W, C], float32 but for "integers".

        `rngs` is a `genjax.rng.Rngs`.
        """
        images = batch["image"]
        if train and self.crop_padding:
            images = random_crop(images, rngs("crop"), self.crop_padding)
        if train and self.flip == "random":
            images = random_flip(images, rngs("flip"))
        if train and self.flip == "alternating":
            keys = rng.per_example(rng.stream(rngs.root, "flip"), batch["index"])
            # Steps of an epoch first: examples seen would overflow an int32.
            whole, part = divmod(rngs.step, self._steps)
            epochs = whole * self._epochs + (part * self.batch_size + batch["slot"]) // (
                self.num_examples
            )
            images = alternating_flip(images, keys, epochs)
        if self.pixels == "binarized_static" or self.pixels == "binarized_dynamic" and not train:
            keys = rng.per_example(jax.random.key(STATIC_BINARIZATION_KEY), batch["index"])
        else:
            keys = rngs("pixels")
        return {**batch, "image": PIXELS[self.pixels](images, keys)}
