"""Stacked MNIST (Metz et al. 2017, https://arxiv.org/abs/1611.02163): 1,000 modes to count.

Three MNIST digits, drawn uniformly with replacement, are the channels of an image; its class is
the number they spell, red first. Which digits an example holds is a function of its place alone.
"""

import dataclasses
import functools
import hashlib

import numpy as np

from genjax.data.sources import Source
from genjax.errors import UserError

# As many as PacGAN (Lin et al. 2018) trains on and draws for its count of modes.
SIZES = {"train": 128_000, "test": 26_000}

CLASS_NAMES = tuple(f"{i:03d}" for i in range(1000))


@dataclasses.dataclass(frozen=True, eq=False)
class StackedSource(Source):
    """Stacked MNIST over a split of MNIST, `digits`."""

    digits: Source

    def read(self, index, image_shape):
        height, width, channels = image_shape
        if channels != 3:
            raise UserError(
                f"dataset '{self.name}' has 3 channels, config.data.image_shape another"
            )
        which = _choices(self.split, self.size, self.digits.size)[np.asarray(index)]
        images, labels = self.digits.read(which.ravel(), (height, width, 1))
        images = np.moveaxis(images.reshape(-1, 3, height, width), 1, -1)
        return np.ascontiguousarray(images), labels.reshape(-1, 3) @ np.array(
            [100, 10, 1], np.int32
        )


@functools.lru_cache(maxsize=2)
def _choices(split, size, num_digits):
    """int64 [size, 3]: the digits of every example."""
    key = int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=key)).integers(0, num_digits, (size, 3))


def stacked_mnist(split, mnist):
    """The source of a split, "train" or "test", over the same split of MNIST."""
    if split not in SIZES:
        raise UserError(f"dataset 'stacked_mnist' has the splits train and test, not '{split}'")
    text = f"{mnist.fingerprint} {SIZES[split]}"
    return StackedSource(
        name="stacked_mnist",
        version=f"1.0.0-{mnist.version}",
        split=split,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        class_names=CLASS_NAMES,
        size=SIZES[split],
        digits=mnist,
    )
