"""A split as uint8 arrays, and batches of it as a pure function of (seed, step).

There is no state of an iterator to save: resuming at step s is asking for batch(s). Data that fits
is decoded once: the array is kept in a cache folder, checksummed, and memory-mapped. Data that does
not fit is decoded as it is asked for. Both give the same batches.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from concurrent import futures

import numpy as np

from genjax.data import cache
from genjax.data.images import MAX_PIXELS, RESIZE_FILTER, BadImage
from genjax.data.sources import Source, cache_root
from genjax.errors import UserError

CACHE_FORMAT = 2
LOADERS = ("array", "grain")
BAD_IMAGES = ("fail", "skip")
# Pictures decoded at a time: enough for a disk to be busy, little beside a dataset.
_CHUNK = 256
_LISTED = 20  # of the pictures left out; the cache has them all


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split in memory (or memory-mapped).

    Attributes:
      name, split: what it is called.
      images: uint8 [N, H, W, C]; codes are uint16.
      labels: int32 [N]; zeros where the data has no classes.
      class_names: tuple of str, empty where there are no classes.
      fingerprint: sha256 of images and labels.
      skipped: (path, reason) of every picture that was left out.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()

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


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedDataset:
    """One split on disk, decoded as it is asked for; for the rest like `Dataset`.

    Attributes:
      source: where it comes from.
      image_shape: (height, width, channels).
      fingerprint: that of the source, the shape and the pictures left out; pixels are not in it.
      kept: int64 [N], the places in `source` of the examples; None for all of them.
      skipped: (path, reason) of every picture that was left out.
    """

    source: Source
    image_shape: tuple[int, int, int]
    fingerprint: str
    kept: np.ndarray | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self):
        return self.source.size if self.kept is None else len(self.kept)

    @property
    def name(self):
        return self.source.name

    @property
    def split(self):
        return self.source.split

    @property
    def class_names(self):
        return self.source.class_names

    def batch(self, index, slot):
        """As `Dataset.batch`; raises UserError where an example cannot be read."""
        index, slot = np.asarray(index, np.int32), np.asarray(slot, np.int32)
        places = index if self.kept is None else self.kept[index]
        images, labels = self.source.read(places, self.image_shape)
        return {"image": images, "label": labels, "index": index, "slot": slot}


def load_dataset(source, image_shape, *, loader="array", bad_images="fail"):
    """Opens one split.

    Args:
      source: a `genjax.data.sources.Source`.
      image_shape: (height, width, channels); images are scaled to cover it and centre-cropped.
      loader: "array" decodes it whole, once, into the cache and returns a `Dataset`; "grain"
        decodes as needed and returns a `StreamedDataset`.
      bad_images: what to do about pictures of a folder that cannot be read. "fail" raises, where
        the first is met; "skip" leaves them out, always the same ones, and lists them on stderr.
        For "grain" all pictures are decoded once to find them. A damaged TFDS dataset always
        raises: its files were once right.

    Raises:
      UserError: an image cannot be read, none is left, or the cache cannot be written.
    """
    assert loader in LOADERS and bad_images in BAD_IMAGES
    if source.size < 1:
        raise UserError(f"dataset '{source.name}' has no examples in split '{source.split}'")
    image_shape = tuple(image_shape)
    key = _key(source, image_shape)
    if loader == "array":
        dataset = _load_array(source, image_shape, key, bad_images)
    else:
        dataset = _load_stream(source, image_shape, key, bad_images)
    if dataset.skipped:
        _tell(dataset)
    return dataset


def train_batches(dataset, batch_size, seed, *, rows=slice(None), num_workers=0, stop=None):
    """Returns `batch(step)`, the training batch of a step: shuffled, endless, exact.

    Epoch after epoch, each in an order of its own that depends on (seed, epoch) alone; a batch may
    reach over the edge of two epochs, so no example is dropped.

    Args:
      dataset: a `Dataset`, or a `StreamedDataset`, which is read ahead of the steps asked for.
      batch_size: of the global batch.
      seed: of the order.
      rows: the rows of the global batch that this process needs; no others are read.
      num_workers: processes that decode a `StreamedDataset`; 0 stands for threads.
      stop: the step at which training ends: nothing is read ahead beyond it.

    Returns:
      A callable; its method `close()` ends the reading ahead.
    """
    if len(dataset) < 1:
        raise UserError(f"dataset '{dataset.name}' has no examples in split '{dataset.split}'")
    order = TrainOrder(len(dataset), batch_size, seed, rows)
    return _batches(dataset, order, num_workers, stop)


def eval_batches(dataset, batch_size, rows=slice(None)):
    """Yields `rows` of every global batch: every example once, in order, in batches of one size.

    The last batch is padded by repeating examples; `mask` (bool [batch_size]) is False there. The
    mask is that of the whole global batch, whatever the rows.
    """
    steps = -(-len(dataset) // batch_size)
    batch_at = _batches(dataset, EvalOrder(len(dataset), batch_size, rows), 0, steps)
    try:
        for step in range(steps):
            mask = step * batch_size + np.arange(batch_size) < len(dataset)
            yield {**batch_at(step), "mask": mask}
    finally:
        batch_at.close()


class TrainOrder:
    """Called with a step: (index, slot) of the rows of its batch. See `train_batches`."""

    def __init__(self, size, batch_size, seed, rows):
        self._arguments = size, batch_size, seed, rows
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def __reduce__(self):  # without the permutations: another process makes its own
        return TrainOrder, self._arguments

    def _permute(self, epoch):
        size, _, seed, _ = self._arguments
        return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)

    def __call__(self, step):
        size, batch_size, _, rows = self._arguments
        slot = np.arange(batch_size)[rows]
        epoch, offset = np.divmod(step * batch_size + slot, size)
        index = np.empty(len(slot), np.int64)
        for e in np.unique(epoch):
            index[epoch == e] = self._permutation(int(e))[offset[epoch == e]]
        return index, slot


@dataclasses.dataclass(frozen=True)
class EvalOrder:
    """Called with a step: (index, slot) of the rows of its batch. See `eval_batches`."""

    size: int
    batch_size: int
    rows: slice

    def __call__(self, step):
        slot = np.arange(self.batch_size)[self.rows]
        return (step * self.batch_size + slot) % self.size, slot


class ArrayBatches:
    """`batch(step)` of a dataset in memory: nothing is gained by reading ahead."""

    def __init__(self, dataset, order):
        self._dataset, self._order = dataset, order

    def __call__(self, step):
        return self._dataset.batch(*self._order(int(step)))

    def close(self):
        pass


def _batches(dataset, order, num_workers, stop):
    if isinstance(dataset, StreamedDataset):
        from genjax.data.stream import StreamedBatches  # imports Grain, needed for nothing else

        return StreamedBatches(dataset, order, num_workers, stop)
    return ArrayBatches(dataset, order)


def _key(source, image_shape):
    """What the pixels depend on."""
    transform = f"cover-{RESIZE_FILTER}-{MAX_PIXELS}-" + "x".join(map(str, image_shape))
    return [CACHE_FORMAT, source.name, source.version, source.split, transform, source.fingerprint]


def _folder(kind, source, key):
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    readable = "".join(c if c.isalnum() else "_" for c in f"{source.name[-40:]}-{source.split}")
    return cache_root() / kind / f"{readable}-{digest}"


def _load_array(source, image_shape, key, bad_images):
    folder = _folder("arrays", source, key)
    meta = cache.cached(folder, lambda to: _decode(source, image_shape, bad_images, folder, to))
    if meta["skipped"] and bad_images == "fail":  # decoded by a run that skipped
        raise BadImage(*meta["skipped"][0])
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    sums = meta["sha256"]["images.npy"] + meta["sha256"]["labels.npy"]
    return Dataset(
        source.name,
        source.split,
        images,
        labels,
        source.class_names,
        hashlib.sha256(sums.encode()).hexdigest(),
        tuple(map(tuple, meta["skipped"])),
    )


def _decode(source, image_shape, bad_images, folder, to):
    """Writes images.npy and labels.npy of all that can be read into the folder `to`."""
    _announce("decoding", source, folder)
    labels, skipped = [], []
    # Written, not memory-mapped: on a full disk a map kills the process instead of raising.
    with open(f"{to}/images.npy", "wb") as f:
        length = _write_header(f, source, source.size, image_shape)
        for index in _chunks(source.size):
            images, chunk_labels, bad = _read(source, index, image_shape, bad_images)
            f.write(images)
            labels.append(chunk_labels)
            skipped += bad
        f.seek(0)
        count = source.size - len(skipped)
        assert _write_header(f, source, count, image_shape) == length
    np.save(f"{to}/labels.npy", np.concatenate(labels))
    return _meta(source, skipped)


def _meta(source, bad):
    """What a cache keeps of the list of `_Bad`."""
    if len(bad) == source.size:
        raise UserError(
            f"dataset '{source.name}': none of the {source.size} pictures of split "
            f"'{source.split}' can be read; the first, {bad[0].path}: {bad[0].reason}"
        )
    return {"places": [b.place for b in bad], "skipped": [[b.path, b.reason] for b in bad]}


def _write_header(file, source, count, image_shape):
    """Writes the head of a .npy file; NumPy pads it, so its length does not depend on `count`."""
    described = {
        "descr": np.dtype(source.dtype).str,
        "fortran_order": False,
        "shape": (count, *image_shape),
    }
    np.lib.format.write_array_header_1_0(file, described)
    return file.tell()


def _load_stream(source, image_shape, key, bad_images):
    kept, skipped = None, ()
    if bad_images == "skip":
        folder = _folder("scans", source, key)
        meta = cache.cached(folder, lambda to: _scan(source, image_shape, folder))
        skipped = tuple(map(tuple, meta["skipped"]))
        if skipped:
            kept = np.delete(np.arange(source.size), meta["places"])
    content = json.dumps([key, [path for path, _ in skipped]])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    return StreamedDataset(source, image_shape, fingerprint, kept, skipped)


def _scan(source, image_shape, folder):
    """Decodes all and keeps nothing but which pictures cannot be."""
    _announce("looking for bad pictures in", source, folder)

    def look(index):
        *_, bad = _read(source, index, image_shape, "skip")
        return bad

    with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        return _meta(source, sum(threads.map(look, _chunks(source.size)), []))


@dataclasses.dataclass(frozen=True)
class _Bad:
    place: int  # in the source
    path: str
    reason: str


def _chunks(size):
    return [np.arange(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)]


def _read(source, index, image_shape, bad_images):
    """(images, labels, list of _Bad) of the examples `index` that can be read."""
    try:
        return *source.read(index, image_shape), []
    except BadImage as error:
        if bad_images == "fail":
            raise
        if len(index) == 1:
            empty = np.empty((0, *image_shape), source.dtype), np.empty(0, np.int32)
            return *empty, [_Bad(int(index[0]), error.path, error.reason)]
    halves = [
        _read(source, half, image_shape, bad_images)
        for half in np.array_split(index, 2)
        if len(half)
    ]
    images, labels, bad = zip(*halves)
    return np.concatenate(images), np.concatenate(labels), sum(bad, [])


def _announce(doing, source, folder):
    print(
        f"{doing} {source.name} ({source.split}, {source.size} images): {folder}", file=sys.stderr
    )


def _tell(dataset):
    total = len(dataset) + len(dataset.skipped)
    print(
        f"{dataset.name} ({dataset.split}): {len(dataset.skipped)} of {total} pictures cannot be "
        "read and are left out:",
        file=sys.stderr,
    )
    for path, reason in dataset.skipped[:_LISTED]:
        print(f"  {path}: {reason}", file=sys.stderr)
    if len(dataset.skipped) > _LISTED:
        print(f"  and {len(dataset.skipped) - _LISTED} more", file=sys.stderr)
