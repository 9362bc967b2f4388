"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. No network.

Images are [8, 8, 1] uint8: the source counts ink from 0 to 16, here round(count * 255 / 16), so 0
is background and 255 full ink, and the counts can be recovered. Labels are 0..9.

The split. The source's file goes writer by writer: runs of about 130 images, each from one form.
So train is the first 1,415 images and test the last 382, in the source's order: the test digits
come from writers who are not in train. A random split would put every writer into both and flatter
any model: a nearest neighbour gets 98.4 % on random splits and 95.6 % where the writers differ.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository (1998), its test set; as `sklearn.datasets.load_digits` has it.
"""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

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

    def _info(self):
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

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        images, labels = load_digits()
        return {
            "train": self._generate_examples(images[:NUM_TRAIN], labels[:NUM_TRAIN]),
            "test": self._generate_examples(images[NUM_TRAIN:], labels[NUM_TRAIN:]),
        }

    def _generate_examples(self, images, labels):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image[..., 0]), "label": int(label)}


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """All images, [1797, 8, 8, 1] uint8 0..255, and labels, [1797], in the source's order."""
    import sklearn.datasets  # slow to import, and needed to prepare only

    source = sklearn.datasets.load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    return images[..., None], source.target
