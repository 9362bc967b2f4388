"""Stacked MNIST (Metz et al. 2017, https://arxiv.org/abs/1611.02163): 1,000 modes to count.

Three MNIST digits, drawn uniformly with replacement, are the channels of an image; its class is
the number they spell, red first. Which digits an example has depends on its position alone.
"""

import dataclasses
import functools
import hashlib

import numpy as np

from genjax.data.source import Index, Source, sha256_of
from genjax.errors import UserError
from genjax.shapes import Int, Shape, UInt8

# As many as PacGAN (Lin et al. 2018) trains on, and generates to count the modes.
SIZES = {"train": 128_000, "test": 26_000}

CLASS_NAMES = tuple(f"{i:03d}" for i in range(1000))


@dataclasses.dataclass(frozen=True, eq=False)
class StackedSource(Source):
    """Stacked MNIST over a split of MNIST, `digits`."""

    digits: Source

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        height, width, channels = image_shape
        if channels != 3:
            raise UserError(
                f"dataset '{self.name}' has 3 channels, config.data.image_shape has {channels}"
            )
        which = _choices(self.split, self.size, self.digits.size)[np.asarray(index)]
        images, labels = self.digits.read(which.ravel(), (height, width, 1))
        images = np.moveaxis(images.reshape(-1, 3, height, width), 1, -1)
        spelled = labels.reshape(-1, 3) @ np.array([100, 10, 1], np.int32)
        return np.ascontiguousarray(images), spelled


def stacked_mnist(split: str, mnist: Source) -> StackedSource:
    """Returns the source of a split, "train" or "test", over the same split of MNIST.

    Raises:
      UserError: there is no such split.
    """
    if split not in SIZES:
        raise UserError(f"dataset 'stacked_mnist' has the splits train and test, not '{split}'")
    return StackedSource(
        name="stacked_mnist",
        version=f"1.0.0-{mnist.version}",
        split=split,
        fingerprint=sha256_of(f"{mnist.fingerprint} {SIZES[split]}"),
        class_names=CLASS_NAMES,
        size=SIZES[split],
        digits=mnist,
    )


@functools.lru_cache(maxsize=2)
def _choices(split: str, size: int, num_digits: int) -> Int[np.ndarray, "size 3"]:
    """Draws the digits of every example: positions in MNIST."""
    key = int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=key)).integers(0, num_digits, (size, 3))
