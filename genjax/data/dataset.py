"""A split decoded once into one uint8 array, and batches of it as a pure function of (seed, step).

Training never decodes an image: the array is kept in a cache folder, checksummed, and memory-
mapped. There is no iterator and so no iterator state: resuming at step s is asking for batch(s).
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile

import numpy as np

from genjax.data.images import RESIZE_FILTER
from genjax.data.sources import cache_root
from genjax.errors import UserError

CACHE_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split in memory (or memory-mapped).

    Attributes:
      name, split: what it is called.
      images: uint8 [N, H, W, C].
      labels: int32 [N]; zeros where the data has no classes.
      class_names: tuple of str, empty where there are no classes.
      fingerprint: sha256 of images and labels.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str

    def __len__(self):
        return len(self.images)

    @property
    def image_shape(self):
        return self.images.shape[1:]

    def batch(self, index, slot):
        """The examples `index` (int [B]) as {"image", "label", "index", "slot"}.

        `index` is an example's place in the dataset, `slot` its place in the global batch: noise
        is keyed by one of them, never by a device.
        """
        index, slot = np.asarray(index, np.int32), np.asarray(slot, np.int32)
        return {
            "image": self.images[index],
            "label": self.labels[index],
            "index": index,
            "slot": slot,
        }


def load_dataset(source, image_shape):
    """Loads one split, from the cache or by decoding it into the cache.

    Args:
      source: a `genjax.data.sources.Source`.
      image_shape: (height, width, channels); images are scaled to cover it and centre-cropped.

    Raises:
      UserError: an image cannot be read.
    """
    transform = f"cover-{RESIZE_FILTER}-" + "x".join(map(str, image_shape))
    key = [CACHE_FORMAT, source.name, source.version, source.split, transform, source.fingerprint]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    readable = "".join(c if c.isalnum() else "_" for c in f"{source.name[-40:]}-{source.split}")
    folder = cache_root() / "arrays" / f"{readable}-{digest}"
    if not folder.exists():
        _decode(source, image_shape, folder, key)
    try:
        return _open(source, folder)
    except (OSError, ValueError, KeyError) as error:
        print(f"cache {folder} is damaged ({error}); decoding again", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _decode(source, image_shape, folder, key)
        return _open(source, folder)


def train_batches(dataset, batch_size, seed):
    """Returns `batch(step)`, the global training batch of a step: shuffled, endless, exact.

    Epoch after epoch, each in an order of its own that depends on (seed, epoch) alone; a batch may
    reach over the edge of two epochs, so no example is dropped.
    """
    size = len(dataset)
    if size < 1:
        raise UserError(f"dataset '{dataset.name}' has no examples in split '{dataset.split}'")

    @functools.lru_cache(maxsize=2)
    def order(epoch):
        return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)

    def batch(step):
        position = int(step) * batch_size + np.arange(batch_size)
        epoch, offset = np.divmod(position, size)
        index = np.empty(batch_size, np.int64)
        for e in np.unique(epoch):
            index[epoch == e] = order(int(e))[offset[epoch == e]]
        return dataset.batch(index, np.arange(batch_size))

    return batch


def eval_batches(dataset, batch_size):
    """Yields every example once, in order, as batches of one size.

    The last batch is padded by repeating examples; `mask` (bool [B]) is False there.
    """
    for start in range(0, len(dataset), batch_size):
        position = start + np.arange(batch_size)
        mask = position < len(dataset)
        index = np.where(mask, position, position % len(dataset))
        yield {**dataset.batch(index, np.arange(batch_size)), "mask": mask}


def _decode(source, image_shape, folder, key):
    """Decodes `source` into `folder`, atomically: the folder is there whole or not at all."""
    print(
        f"decoding {source.name} ({source.split}, {source.size} images) into {folder}",
        file=sys.stderr,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    try:
        shape = (source.size, *image_shape)
        images = np.lib.format.open_memmap(
            f"{partial}/images.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        labels = np.zeros(source.size, np.int32)
        count = 0
        for image, label in source.examples(tuple(image_shape)):
            images[count], labels[count] = image, label
            count += 1
        if count != source.size:
            raise UserError(f"dataset '{source.name}': {count} images instead of {source.size}")
        images.flush()
        np.save(f"{partial}/labels.npy", labels)
        meta = {
            "key": key,
            "class_names": source.class_names,
            "sha256": {n: _file_sha256(f"{partial}/{n}.npy") for n in ("images", "labels")},
        }
        with open(f"{partial}/meta.json", "w") as f:
            json.dump(meta, f, indent=1)
        try:
            os.rename(partial, folder)
        except OSError:  # another process was first: its copy is as good
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open(source, folder):
    with open(folder / "meta.json") as f:
        meta = json.load(f)
    for name, sha256 in meta["sha256"].items():
        if _file_sha256(folder / f"{name}.npy") != sha256:
            raise ValueError(f"{name}.npy does not have its checksum")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    fingerprint = hashlib.sha256("".join(meta["sha256"].values()).encode()).hexdigest()
    return Dataset(
        source.name, source.split, images, labels, tuple(meta["class_names"]), fingerprint
    )


def _file_sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
