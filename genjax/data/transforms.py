"""Transforms from uint8 pixels to the inputs of a network: on the device, one key an example.

Every function takes images [B, H, W, C] and keys [B] and transforms each example with its own key.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.devices import platform
from genjax.rng import Rngs
from genjax.typing import AnyArray, Array, Float, Int, Key, Num

# A static binarisation is part of the data: one fixed draw for each pixel, the same in every run.
STATIC_BINARIZATION_KEY = 0


def unit(
    images: Num[AnyArray, "*shape"], keys: Key[Array, " b"] | None = None
) -> Float[AnyArray, "*shape"]:
    """Scales uint8 to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def symmetric(
    images: Num[AnyArray, "*shape"], keys: Key[Array, " b"] | None = None
) -> Float[AnyArray, "*shape"]:
    """Scales uint8 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def clip_to_unit(images: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Clips images to [0, 1]; what is not finite becomes NaN: an infinity is no white pixel."""
    return jnp.where(jnp.isfinite(images), jnp.clip(images, 0.0, 1.0), jnp.nan)


def integers(
    images: Num[AnyArray, "*shape"], keys: Key[Array, " b"] | None = None
) -> Int[AnyArray, "*shape"]:
    """Converts codes, or pixels, to int32."""
    return images.astype(jnp.int32)


def dequantized(
    images: Num[AnyArray, "b h w c"], keys: Key[Array, " b"]
) -> Float[Array, "b h w c"]:
    """Adds noise: uint8 -> float32 in [0, 1), (x + u) / 256 with u uniform in [0, 1).

    Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3.1.
    """
    return (images.astype(jnp.float32) + rng.uniform(keys, images.shape[1:])) / 256.0


def binarized(images: Num[AnyArray, "b h w c"], keys: Key[Array, " b"]) -> Float[Array, "b h w c"]:
    """Draws float32 pixels in {0, 1}: 1 with probability x / 255."""
    return (rng.uniform(keys, images.shape[1:]) < unit(images)).astype(jnp.float32)


def random_flip(images: Num[AnyArray, "b h w c"], keys: Key[Array, " b"]) -> Num[Array, "b h w c"]:
    """Mirrors each image left to right with probability 1/2."""
    flip = rng.uniform(keys, (1, 1, 1)) < 0.5
    return jnp.where(flip, images[:, :, ::-1, :], images)


def alternating_flip(
    images: Num[AnyArray, "b h w c"], keys: Key[Array, " b"], epochs: Int[Array, " b"]
) -> Num[Array, "b h w c"]:
    """Mirrors about half of the images in epoch 0, and each one every other epoch from then on.

    Every pair of epochs has each image both ways (Jordan 2024, https://arxiv.org/abs/2404.00498).

    Args:
      images: any dtype.
      keys: of the images themselves: the same in every epoch.
      epochs: the epoch of each example.
    """
    first = rng.uniform(keys, ()) < 0.5
    flip = first ^ (epochs % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1, :], images)


def window(
    image: Num[AnyArray, "h w c"], y: Int[AnyArray, ""], x: Int[AnyArray, ""], size: Sequence[int]
) -> Num[Array, "h2 w2 c"]:
    """Returns the window of `size` (H2, W2) whose first pixel is (y, x); it lies in the image.

    On a CPU `lax.dynamic_slice`, which under `vmap` becomes a loop over the images on a TPU;
    elsewhere selected among all windows, rows first, of which the image should have few.
    """
    if platform() == "cpu":
        return jax.lax.dynamic_slice(image, (y, x, 0), (*size, image.shape[2]))
    for axis, start in enumerate((y, x)):
        starts = range(image.shape[axis] - size[axis] + 1)
        slices = [jax.lax.slice_in_dim(image, s, s + size[axis], axis=axis) for s in starts]
        image = jax.lax.select_n(start, *slices) if len(slices) > 1 else slices[0]
    return image


def random_crop(
    images: Num[AnyArray, "b h w c"], keys: Key[Array, " b"], padding: int
) -> Num[Array, "b h w c"]:
    """Pads by reflection with `padding` pixels and crops each image at its own random position."""
    _, height, width, _ = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around, mode="reflect")

    def crop(image: Num[Array, "h2 w2 c"], key: Key[Array, ""]) -> Num[Array, "h w c"]:
        return window(image, *jax.random.randint(key, (2,), 0, 2 * padding + 1), (height, width))

    return jax.vmap(crop)(padded, keys)


# How training images are mirrored: config.data.flip.
FLIPS = ("none", "random", "alternating")

# What a pixel becomes: config.data.pixels.
PIXELS = {
    "unit": unit,
    "symmetric": symmetric,
    "integers": integers,
    "dequantized": dequantized,
    "binarized_dynamic": binarized,  # drawn anew every step
    "binarized_static": binarized,  # drawn once
}


@dataclasses.dataclass(frozen=True)
class Transform:
    """The transform of a batch on the device, before the loss.

    Attributes:
      pixels: a name in `PIXELS`. Evaluation binarises statically, also where training does not.
      flip: a name in `FLIPS` (training only).
      crop_padding: pixels of reflection padding for random crops (training only), 0 for none.
      batch_size, num_examples: of training; alternating flips compute the epoch from them.
    """

    pixels: str = "unit"
    flip: str = "none"
    crop_padding: int = 0
    batch_size: int = 1
    num_examples: int = 1

    @property
    def _steps(self) -> int:
        """The number of steps after which an epoch and a batch end together."""
        return self.num_examples // math.gcd(self.num_examples, self.batch_size)

    @property
    def _epochs(self) -> int:
        """The number of epochs in `_steps` steps."""
        return self.batch_size // math.gcd(self.num_examples, self.batch_size)

    def __call__(self, batch: dict[str, Any], rngs: Rngs, train: bool) -> dict[str, Any]:
        """Transforms "image" of a batch.

        Args:
          batch: {"image": [B, H, W, C], "index", "slot", ...}, see `genjax.data.dataset`.
          rngs: the random streams of the step.
          train: whether to augment.

        Returns:
          The batch, its "image" float32, or int32 for "integers".
        """
        images = batch["image"]
        if train and self.crop_padding:
            images = random_crop(images, rngs("crop"), self.crop_padding)
        if train and self.flip == "random":
            images = random_flip(images, rngs("flip"))
        if train and self.flip == "alternating":
            keys = rng.per_example(rng.stream(rngs.root, "flip"), batch["index"])
            # In two parts: the number of all examples so far would overflow an int32.
            periods, steps = divmod(rngs.step, self._steps)
            examples = steps * self.batch_size + batch["slot"]
            epochs = periods * self._epochs + examples // self.num_examples
            images = alternating_flip(images, keys, epochs)
        if self.pixels == "binarized_static" or self.pixels == "binarized_dynamic" and not train:
            keys = rng.per_example(jax.random.key(STATIC_BINARIZATION_KEY), batch["index"])
        else:
            keys = rngs("pixels")
        return {**batch, "image": PIXELS[self.pixels](images, keys)}
