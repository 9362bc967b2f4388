"""CIFAR-10, prepared without TensorFlow.

As in `mnist.py`, TFDS's own builder describes the dataset and this one reads the original archive;
the prepared dataset is the same.

Images are [32, 32, 3] uint8, RGB, 0..255; labels are 0..9; 50,000 training and 10,000 test examples
in the order of the original files.

Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from genjax.download import RemoteFile, fetch

_FOLDER = "cifar-10-batches-bin/"
_LABEL_NAMES = _FOLDER + "batches.meta.txt"
_SPLITS = {
    "train": [f"{_FOLDER}data_batch_{number}.bin" for number in range(1, 6)],
    "test": [f"{_FOLDER}test_batch.bin"],
}


# Not registered, and `__module__`: see mnist.py.
class Cifar10(tfds.image_classification.Cifar10, skip_registration=True):
    """TFDS `cifar10`."""

    __module__ = tfds.image_classification.Cifar10.__module__

    # Size and checksum as TFDS registers them.
    ARCHIVE = RemoteFile(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170052171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        path = fetch(self.ARCHIVE, pathlib.Path(dl_manager.download_dir) / self.name)
        wanted = [_LABEL_NAMES, *(name for names in _SPLITS.values() for name in names)]
        members = read_members(path, wanted)
        self.info.features["label"].names = members[_LABEL_NAMES].decode().split()
        return {
            split: self._generate_examples(split, b"".join(members[name] for name in names))
            for split, names in _SPLITS.items()
        }

    def _generate_examples(self, split: str, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
        # A record is the label, then the red, the green and the blue plane, row by row.
        records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, H, W, C]
        for index, (image, label) in enumerate(zip(images, records[:, 0], strict=True)):
            identity = f"{split}_{index:05d}"
            yield index, {"id": identity, "image": Image.fromarray(image), "label": int(label)}


def read_members(path: pathlib.Path, names: list[str]) -> dict[str, bytes]:
    """Reads files of a gzipped tar archive by their names; nothing is extracted to disk."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:  # one pass: seeking in a gzip stream means decompressing it again
            if member.isfile() and member.name in names:
                contents[member.name] = archive.extractfile(member).read()
    if missing := set(names) - set(contents):
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    return contents
