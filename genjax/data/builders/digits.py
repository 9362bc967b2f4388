"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. No network.

Images are [8, 8, 1] uint8. The source counts ink from 0 to 16; here it is round(count * 255 / 16),
so 0 is background and 255 full ink, and the counts can be recovered. Labels are 0..9.

The source's file is ordered by writer: runs of about 130 images, each from one form. The training
split is the first 1,415 images and the test split the last 382, in the source's order, so that the
test digits come from other writers. A random split would put every writer into both and make any
model look better: a nearest neighbour gets 98.4 % on random splits and 95.6 % with other writers.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), its test set; as `sklearn.datasets.load_digits` has it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from genjax.shapes import Int, UInt8

NUM_TRAIN = 1415

_DESCRIPTION = (
    "1,797 handwritten digits as 8x8 grey images: the test set of the UCI Optical Recognition of "
    "Handwritten Digits, as scikit-learn distributes it. The ink counts 0..16 are scaled to "
    "0..255. In the order of the source, which goes writer by writer, the first 1,415 images are "
    "the training split and the last 382 the test split."
)

_CITATION = """
@misc{alpaydin1998optical,
  title={Optical Recognition of Handwritten Digits},
  author={Alpaydin, E. and Kaynak, C.},
  year={1998},
  howpublished={UCI Machine Learning Repository},
  doi={10.24432/C50P49}
}
"""


class Digits(tfds.core.GeneratorBasedBuilder):
    """TFDS builder `digits`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing to download
        images, labels = load_digits()
        return {
            "train": self._generate_examples(images[:NUM_TRAIN], labels[:NUM_TRAIN]),
            "test": self._generate_examples(images[NUM_TRAIN:], labels[NUM_TRAIN:]),
        }

    def _generate_examples(
        self, images: UInt8[np.ndarray, "n 8 8 1"], labels: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


def load_digits() -> tuple[UInt8[np.ndarray, "1797 8 8 1"], Int[np.ndarray, " 1797"]]:
    """Returns all images, 0..255, and labels, in the source's order."""
    import sklearn.datasets  # slow to import, and only needed to prepare

    source = sklearn.datasets.load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    return images[..., None], source.target
