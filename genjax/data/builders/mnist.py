"""MNIST and Fashion-MNIST, prepared without TensorFlow.

TFDS's own builders open the files with `tf.io.gfile` and encode images with `tf.image`. These two
inherit the description of the dataset from them (name, version, features, citation) and replace
only the reading and the encoding. The prepared dataset is the same: the same metadata, keys, order,
labels and pixels; only the compressed bytes of the PNGs are Pillow's.

Images are [28, 28, 1] uint8, 0 (background) to 255 (ink); labels are 0..9; 60,000 training and
10,000 test examples in the order of the original files.

Sources: LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (1998);
Xiao, Rasul, Vollgraf, "Fashion-MNIST" (2017), https://arxiv.org/abs/1708.07747.
"""

import gzip
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from genjax.download import RemoteFile, fetch

_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


class _IdxBuilder:
    """Reads two IDX files for each split, images and labels."""

    FILES: dict[str, tuple[RemoteFile, RemoteFile]]  # split -> (images, labels)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = pathlib.Path(dl_manager.download_dir) / self.name
        paths = {
            split: [fetch(file, folder) for file in files] for split, files in self.FILES.items()
        }
        return {split: self._generate_examples(*pair) for split, pair in paths.items()}

    def _generate_examples(
        self, images_path: pathlib.Path, labels_path: pathlib.Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = read_idx(images_path), read_idx(labels_path)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(image), "label": int(label)}


# Not registered, so that `tfds.builder("mnist")` remains TFDS's own. TFDS writes `__module__` into
# dataset_info.json as the dataset's source.
class Mnist(_IdxBuilder, tfds.image_classification.MNIST, skip_registration=True):
    """TFDS `mnist`."""

    __module__ = tfds.image_classification.MNIST.__module__

    # Sizes and checksums as TFDS registers them.
    FILES = {
        "train": (
            RemoteFile(
                f"{_MNIST_URL}/train-images-idx3-ubyte.gz",
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            RemoteFile(
                f"{_MNIST_URL}/train-labels-idx1-ubyte.gz",
                28881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            RemoteFile(
                f"{_MNIST_URL}/t10k-images-idx3-ubyte.gz",
                1648877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            RemoteFile(
                f"{_MNIST_URL}/t10k-labels-idx1-ubyte.gz",
                4542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    }


class FashionMnist(_IdxBuilder, tfds.image_classification.FashionMNIST, skip_registration=True):
    """TFDS `fashion_mnist`."""

    __module__ = tfds.image_classification.FashionMNIST.__module__

    FILES = {
        "train": (
            RemoteFile(
                f"{_FASHION_URL}/train-images-idx3-ubyte.gz",
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            RemoteFile(
                f"{_FASHION_URL}/train-labels-idx1-ubyte.gz",
                29515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
        ),
        "test": (
            RemoteFile(
                f"{_FASHION_URL}/t10k-images-idx3-ubyte.gz",
                4422102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            RemoteFile(
                f"{_FASHION_URL}/t10k-labels-idx1-ubyte.gz",
                5148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    }


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads a uint8 array from a gzipped IDX file, with the shape that its header states."""
    data = gzip.decompress(path.read_bytes())
    # Header: two zero bytes, the type (8 is uint8), the rank, then each size as big-endian uint32.
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
