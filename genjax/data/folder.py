"""Folders of pictures as datasets."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from genjax.data.images import read_image
from genjax.data.listing import (
    PICTURE_SUFFIXES,
    Listing,
    describe,
    find_classes,
    find_splits,
    look_into,
)
from genjax.data.source import Index, Source, sha256_of
from genjax.errors import UserError, one_line
from genjax.shapes import Int, Shape, UInt8

# In a folder without splits every tenth file, in sorted order, is for testing.
TEST_EVERY = 10
SPLITS = ("train", "test", "val", "all")

# Of how many pictures, and how many bytes of each, the content is in the checksum of a folder.
_SAMPLED, _SAMPLED_BYTES = 256, 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """The pictures at `paths` with their `labels`.

    Attributes:
      top: the folder of the split, which the pictures' names are relative to.
      summary: how many pictures in which classes, and what was left out.
    """

    paths: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    top: Path
    summary: str = dataclasses.field(default="", kw_only=True)

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        images = np.empty((len(index), *image_shape), np.uint8)
        for i, position in enumerate(index):
            images[i] = read_image(self.paths[position], image_shape)
        return images, self.labels[index]

    def checksum(self) -> str:
        """Returns the SHA-256 of the names and sizes of all pictures, and the content of some."""
        checksum = hashlib.sha256(json.dumps([self.class_names, self.labels.tolist()]).encode())
        sampled = set(np.linspace(0, self.size - 1, min(self.size, _SAMPLED)).astype(int).tolist())
        for i, path in enumerate(map(Path, self.paths)):
            name = str(path.relative_to(self.top)).encode("utf-8", "surrogateescape")
            try:
                checksum.update(name + b"\0%d\0" % path.stat().st_size)
                if i in sampled and path.is_file():  # opening a pipe would block
                    with open(path, "rb") as file:
                        checksum.update(file.read(_SAMPLED_BYTES))
            except OSError as error:  # reported when it is read
                checksum.update(name + str(error.strerror).encode())
        return checksum.hexdigest()


def folder_source(root: Path, split: str) -> FolderSource:
    """Finds the pictures of a folder; `genjax.data.listing` has the rules.

    The splits are folders such as train/ and test/, or, without them, every tenth picture is for
    testing. Where there is no test/, val/ is for testing. A class is a folder in that of a split.

    Args:
      root: the folder. Links are followed.
      split: "train", "test", "val", or "all": every picture, whatever the folders in it mean.

    Raises:
      UserError: the folder is missing, cannot be read, holds too few pictures, or one would have
        to guess what its folders mean.
    """
    if not root.is_dir():
        raise UserError(f"config.data.name: there is no folder {one_line(root)}")
    if split not in SPLITS:
        raise UserError(f"a folder has the splits {', '.join(SPLITS)}, not '{split}'")
    listing = look_into(root)
    if split == "all":
        splits, top, classes = {}, listing, _classes_if_clear(listing)
    elif splits := find_splits(listing):
        top = _of_split(splits, split, root)
        classes = find_classes({"train": splits["train"], split: top})
    else:
        top, classes = listing, find_classes({split: listing})
    files = top.all_pictures()
    if not splits and len(files) < 2:
        raise UserError(
            f"config.data.name: {one_line(root)} holds {describe(len(files), (), listing, listing)}"
            "; at least 2 are needed"
        )
    for_testing = set() if splits or split == "all" else set(files[::TEST_EVERY])
    if for_testing:
        files = [path for path in files if (path in for_testing) == (split != "train")]
    if not files:
        raise UserError(
            f"config.data.name: {one_line(top.path)} holds {describe(0, (), top, top)}; give it "
            f"some ({', '.join(PICTURE_SUFFIXES)})"
        )
    if split != "all":
        _check_trained(classes, for_testing, "train" if splits else split)
    named = enumerate(classes.values())
    label = {path: i for i, parts in named for paths in parts.values() for path in paths}
    class_names = tuple(classes)
    labels = np.array([label.get(path, 0) for path in files], np.int32)
    description = [(str(path.relative_to(top.path)), *_status(path)) for path in files]
    return FolderSource(
        name=f"folder:{root.resolve()}",
        version="0",
        split=split,
        fingerprint=sha256_of(json.dumps([class_names, description])),
        class_names=class_names,
        size=len(files),
        summary=describe(len(files), class_names, listing, listing if not splits else top),
        paths=tuple(map(str, files)),
        labels=labels,
        top=top.path,
    )


def _classes_if_clear(listing: Listing) -> dict[str, dict[str, list[Path]]]:
    """Returns the classes of all splits; {} where one would have to guess."""
    try:
        return find_classes(find_splits(listing) or {"all": listing})
    except UserError:
        return {}


def _of_split(splits: dict[str, Listing], split: str, root: Path) -> Listing:
    """Returns the folder of a split; where there is no test/, val/ is for testing."""
    chosen = splits.get(split) or (splits.get("val") if split == "test" else None)
    if chosen is None:
        raise UserError(f"{one_line(root)} has no split {split}; it has {', '.join(splits)}")
    return chosen


def _check_trained(
    classes: dict[str, dict[str, list[Path]]], for_testing: set[Path], train: str
) -> None:
    """Raises a UserError for classes without a picture for training."""
    for name, parts in classes.items():
        if not set(parts.get(train, [])) - for_testing:
            some = next(path for pictures in parts.values() for path in pictures)
            raise UserError(
                f"config.data.name: class '{one_line(name)}' has pictures for testing alone "
                f"({one_line(some)}): add some for training, or move it away"
            )


def _status(path: Path) -> list[int | str | None]:
    """Returns what changes with a file: its size, its time and its permissions."""
    try:
        status = path.stat()
    except OSError as error:  # a broken link: reported when it is read
        return [error.strerror]
    return [status.st_size, status.st_mtime_ns, status.st_mode]
