"""A split as uint8 arrays, and batches of it as a pure function of (seed, step).

No iterator has a state to save: a run that resumes at step s calls batch(s). Data that fits into
memory is decoded once: the array is kept in a cache folder, checksummed, and memory-mapped. Data
that does not fit is decoded when a batch needs it. Both give the same batches.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any, Protocol, SupportsInt, TypeAlias, runtime_checkable

import numpy as np

from genjax.data import cache
from genjax.data.images import MAX_PIXELS, RESIZE_FILTER, BadImage
from genjax.data.source import Index, Source, sha256_of
from genjax.errors import UserError
from genjax.files import cache_root
from genjax.messages import write_line
from genjax.shapes import Int, Num, Shape

CACHE_FORMAT = 2
LOADERS = ("array", "grain")
BAD_IMAGES = ("fail", "skip")
# Pictures decoded at a time: enough to keep a disk busy, and a small part of a dataset.
_CHUNK = 256
_LISTED = 20  # pictures that are named when some are left out; the cache lists them all

Batch: TypeAlias = dict[str, np.ndarray]
# The positions and slots of a batch, of one process.
Rows: TypeAlias = tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split in memory, or memory-mapped.

    Attributes:
      name, split: identify it.
      images: uint8; codes are uint16.
      labels: int32; zeros where the data has no classes.
      class_names: empty where there are no classes.
      fingerprint: SHA-256 of images and labels.
      skipped: (path, reason) of every picture that was left out.
      former_fingerprint: another one that says the same, of earlier versions; "" for none.
    """

    name: str
    split: str
    images: Num[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()
    former_fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> Shape:
        return self.images.shape[1:]

    def batch(self, index: Index, slot: Index) -> Batch:
        """Returns the examples at `index` as {"image", "label", "index", "slot"}.

        Args:
          index: [B], positions in the dataset.
          slot: [B], positions in the global batch. Noise is keyed by one of the two, never by a
            device.
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
    """One split on disk, decoded batch by batch; otherwise like `Dataset`.

    Attributes:
      source: the data.
      image_shape: (height, width, channels).
      fingerprint: depends on the checksum of the source, the shape and the pictures left out; a
        copy of the data at another path has it too.
      kept: positions of the examples in `source`; None for all of them.
      skipped: (path, reason) of every picture that was left out.
      former_fingerprint: that of earlier versions, which path and times of the files changed.
    """

    source: Source
    image_shape: Shape
    fingerprint: str
    kept: Int[np.ndarray, " n"] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    former_fingerprint: str = ""

    def __len__(self) -> int:
        return self.source.size if self.kept is None else len(self.kept)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def split(self) -> str:
        return self.source.split

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def batch(self, index: Index, slot: Index) -> Batch:
        """Decodes the examples at `index`, see `Dataset.batch`; UserError if one is unreadable."""
        index, slot = np.asarray(index, np.int32), np.asarray(slot, np.int32)
        positions = index if self.kept is None else self.kept[index]
        images, labels = self.source.read(positions, self.image_shape)
        return {"image": images, "label": labels, "index": index, "slot": slot}


@runtime_checkable
class Batches(Protocol):
    """The batches of a dataset in one order: called with a step, it returns the step's batch."""

    def __call__(self, step: SupportsInt) -> Batch: ...

    def close(self) -> None:
        """Ends the reading ahead; a later call starts it again."""


def load_dataset(
    source: Source,
    image_shape: Sequence[int],
    *,
    loader: str = "array",
    bad_images: str = "fail",
) -> Dataset | StreamedDataset:
    """Opens one split.

    Args:
      source: the data.
      image_shape: (height, width, channels); images are scaled to cover it and centre-cropped.
      loader: "array" decodes all images once, into the cache, and returns a `Dataset`; "grain"
        decodes batch by batch and returns a `StreamedDataset`.
      bad_images: what to do about pictures of a folder that cannot be read. "fail" raises at the
        first one; "skip" leaves them out, always the same ones, and lists them on stderr.
        For "grain" all pictures are decoded once to find them. A damaged TFDS dataset always
        raises, because its files were intact when they were prepared.

    Raises:
      UserError: an image cannot be read, none remains, or the cache cannot be written.
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
        _list_skipped(dataset)
    return dataset


def train_batches(
    dataset: Dataset | StreamedDataset,
    batch_size: int,
    seed: int,
    *,
    rows: slice = slice(None),
    num_workers: int = 0,
    stop: int | None = None,
) -> Batches:
    """Returns `batch(step)`, the training batch of a step: shuffled, endless, exact.

    Every epoch has its own order, which depends on (seed, epoch) alone; a batch may contain the end
    of one epoch and the start of the next, so no example is dropped.

    Args:
      dataset: the data; a `StreamedDataset` is read ahead of the steps that are called.
      batch_size: size of the global batch.
      seed: of the order.
      rows: the rows of the global batch that this process needs; no others are read.
      num_workers: processes that decode a `StreamedDataset`; 0 stands for threads.
      stop: the step at which training ends: nothing is read ahead beyond it.

    Raises:
      UserError: the dataset is empty.
    """
    if len(dataset) < 1:
        raise UserError(f"dataset '{dataset.name}' has no examples in split '{dataset.split}'")
    order = TrainOrder(len(dataset), batch_size, seed, rows)
    return _batches(dataset, order, num_workers, stop)


def eval_batches(
    dataset: Dataset | StreamedDataset, batch_size: int, rows: slice = slice(None)
) -> Iterator[Batch]:
    """Yields `rows` of every global batch: every example once, in order, in batches of one size.

    The last batch is padded by repeating examples; `mask` (bool [batch_size]) is False there. The
    mask covers the full global batch, whatever the rows.
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
    """Maps a step to (index, slot) of the rows of its batch, see `train_batches`."""

    def __init__(self, size: int, batch_size: int, seed: int, rows: slice):
        self._arguments = size, batch_size, seed, rows
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def __reduce__(self):  # without the permutations: another process computes its own
        return TrainOrder, self._arguments

    def _permute(self, epoch: int) -> Int[np.ndarray, " n"]:
        size, _, seed, _ = self._arguments
        return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)

    def __call__(self, step: int) -> Rows:
        size, batch_size, _, rows = self._arguments
        slot = np.arange(batch_size)[rows]
        epoch, offset = np.divmod(step * batch_size + slot, size)
        index = np.empty(len(slot), np.int64)
        for e in np.unique(epoch):
            index[epoch == e] = self._permutation(int(e))[offset[epoch == e]]
        return index, slot


@dataclasses.dataclass(frozen=True)
class EvalOrder:
    """Maps a step to (index, slot) of the rows of its batch, see `eval_batches`."""

    size: int
    batch_size: int
    rows: slice

    def __call__(self, step: int) -> Rows:
        slot = np.arange(self.batch_size)[self.rows]
        return (step * self.batch_size + slot) % self.size, slot


class ArrayBatches:
    """`Batches` of a dataset in memory, where reading ahead would gain nothing."""

    def __init__(self, dataset: Dataset, order: Callable[[int], Rows]):
        self._dataset, self._order = dataset, order

    def __call__(self, step: SupportsInt) -> Batch:
        return self._dataset.batch(*self._order(int(step)))

    def close(self) -> None:
        pass


def _batches(
    dataset: Dataset | StreamedDataset,
    order: Callable[[int], Rows],
    num_workers: int,
    stop: int | None,
) -> Batches:
    if isinstance(dataset, StreamedDataset):
        from genjax.data.stream import StreamedBatches  # imports Grain, needed for nothing else

        return StreamedBatches(dataset, order, num_workers, stop)
    return ArrayBatches(dataset, order)


def _key(source: Source, image_shape: Shape) -> list[Any]:
    """Lists what the pixels depend on."""
    transform = f"cover-{RESIZE_FILTER}-{MAX_PIXELS}-" + "x".join(map(str, image_shape))
    return [CACHE_FORMAT, source.name, source.version, source.split, transform, source.fingerprint]


def _folder(kind: str, source: Source, key: list[Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    readable = "".join(c if c.isalnum() else "_" for c in f"{source.name[-40:]}-{source.split}")
    return cache_root() / kind / f"{readable}-{digest}"


@dataclasses.dataclass(frozen=True)
class _Bad:
    """A picture that cannot be read, and its position in the source."""

    position: int
    path: str
    reason: str


def _load_array(source: Source, image_shape: Shape, key: list[Any], bad_images: str) -> Dataset:
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


def _decode(
    source: Source, image_shape: Shape, bad_images: str, folder: Path, to: str
) -> dict[str, Any]:
    """Writes images.npy and labels.npy of all readable pictures into the folder `to`."""
    _announce("decoding", source, folder)
    labels, skipped = [], []
    # Written, not memory-mapped: on a full disk a memory map kills the process, without an error.
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


def _meta(source: Source, bad: list[_Bad]) -> dict[str, Any]:
    """Returns what a cache records about unreadable pictures."""
    if len(bad) == source.size:
        raise UserError(
            f"dataset '{source.name}': none of the {source.size} pictures of split "
            f"'{source.split}' can be read; the first, {bad[0].path}: {bad[0].reason}"
        )
    return {"places": [b.position for b in bad], "skipped": [[b.path, b.reason] for b in bad]}


def _write_header(file: IO[bytes], source: Source, count: int, image_shape: Shape) -> int:
    """Writes the header of a .npy file and returns its length.

    NumPy pads the header, so its length does not depend on `count`.
    """
    description = {
        "descr": np.dtype(source.dtype).str,
        "fortran_order": False,
        "shape": (count, *image_shape),
    }
    np.lib.format.write_array_header_1_0(file, description)
    return file.tell()


def _load_stream(
    source: Source, image_shape: Shape, key: list[Any], bad_images: str
) -> StreamedDataset:
    kept, skipped, places = None, (), []
    if bad_images == "skip":
        folder = _folder("scans", source, key)
        meta = cache.cached(folder, lambda to: _scan(source, image_shape, folder))
        skipped = tuple(map(tuple, meta["skipped"]))
        places = meta["places"]
        if skipped:
            kept = np.delete(np.arange(source.size), places)
    _, _, version, split, transform, _ = key
    content = [version, split, transform, source.checksum(), places]
    former = [key, [path for path, _ in skipped]]
    fingerprint, former_fingerprint = (sha256_of(json.dumps(x)) for x in (content, former))
    return StreamedDataset(source, image_shape, fingerprint, kept, skipped, former_fingerprint)


def _scan(source: Source, image_shape: Shape, folder: Path) -> dict[str, Any]:
    """Decodes all pictures to find those that cannot be read."""
    _announce("looking for bad pictures in", source, folder)

    def unreadable(index: np.ndarray) -> list[_Bad]:
        *_, bad = _read(source, index, image_shape, "skip")
        return bad

    with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        return _meta(source, sum(threads.map(unreadable, _chunks(source.size)), []))


def _chunks(size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)]


def _read(
    source: Source, index: np.ndarray, image_shape: Shape, bad_images: str
) -> tuple[np.ndarray, np.ndarray, list[_Bad]]:
    """Returns images and labels of the readable examples at `index`, and the others."""
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


def _announce(doing: str, source: Source, folder: Path) -> None:
    write_line(f"{doing} {source.name} ({source.split}, {source.size} images): {folder}")


def _list_skipped(dataset: Dataset | StreamedDataset) -> None:
    total = len(dataset) + len(dataset.skipped)
    write_line(
        f"{dataset.name} ({dataset.split}): {len(dataset.skipped)} of {total} pictures cannot be "
        "read and are left out:"
    )
    for path, reason in dataset.skipped[:_LISTED]:
        write_line(f"  {path}: {reason}")
    if len(dataset.skipped) > _LISTED:
        write_line(f"  and {len(dataset.skipped) - _LISTED} more")
