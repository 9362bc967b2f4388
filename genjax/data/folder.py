"""Folders of pictures as datasets."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genjax.data.images import read_image
from genjax.data.source import Index, Source, sha256_of
from genjax.errors import UserError, one_line
from genjax.shapes import Int, Shape, UInt8

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# In a folder without train/ and test/ every tenth file, in sorted order, is for testing.
TEST_EVERY = 10


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """The pictures at `paths` with their `labels`."""

    paths: tuple[str, ...]
    labels: Int[np.ndarray, " n"]

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        images = np.empty((len(index), *image_shape), np.uint8)
        for i, position in enumerate(index):
            images[i] = read_image(self.paths[position], image_shape)
        return images, self.labels[index]


def folder_source(root: Path, split: str) -> FolderSource:
    """Finds the pictures of a folder.

    A class is the first folder below `root` (below `root`/train and `root`/test, if both exist,
    which are then the splits); pictures outside of such folders have no class.

    Args:
      root: the folder. Links are followed.
      split: "train", "test" or "all".

    Raises:
      UserError: the folder is missing, cannot be read, or holds too few pictures.
    """
    if not root.is_dir():
        raise UserError(f"config.data.name: there is no folder {root}")
    if split not in ("train", "test", "all"):
        raise UserError(f"a folder has the splits train, test and all, not '{split}'")
    has_splits = split != "all" and (root / "train").is_dir() and (root / "test").is_dir()
    top = root / split if has_splits else root
    files = sorted(_pictures_below(top))
    if not has_splits:
        if len(files) < 2:
            raise UserError(
                f"config.data.name: {root} holds {len(files)} pictures; at least 2 are needed"
            )
        if split != "all":
            files = [f for i, f in enumerate(files) if (i % TEST_EVERY == 0) == (split == "test")]
    if not files:
        raise UserError(f"config.data.name: {top} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    class_names = _class_names([root / "train", root / "test"] if has_splits else [root])
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number.get(p.relative_to(top).parts[0], 0) for p in files], np.int32)
    description = [(str(p.relative_to(top)), *_status(p)) for p in files]
    return FolderSource(
        name=f"folder:{root.resolve()}",
        version="0",
        split=split,
        fingerprint=sha256_of(json.dumps([class_names, description])),
        class_names=class_names,
        size=len(files),
        paths=tuple(map(str, files)),
        labels=labels,
    )


def _class_names(tops: list[Path]) -> tuple[str, ...]:
    """Lists the folders directly below all `tops`.

    All splits together, so that they number the classes alike; and folders, not pictures, so that
    an unreadable picture changes no label.
    """
    return tuple(sorted({c.name for top in tops for c in top.iterdir() if c.is_dir()}))


def _pictures_below(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields all files below `folder` with a picture's suffix; links are followed."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that contains it
        return
    try:
        with os.scandir(folder) as entries:
            entries = [(entry.path, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise UserError(
            f"config.data.name: cannot look into the folder {one_line(folder)}: {error.strerror}"
        ) from error
    for path, is_folder in entries:
        if is_folder:
            yield from _pictures_below(path, (*above, real))
        elif path.lower().endswith(IMAGE_SUFFIXES):
            yield Path(path)


def _status(path: Path) -> list[int | str | None]:
    """Returns what changes with a file: its size, its time and its permissions."""
    try:
        status = path.stat()
    except OSError as error:  # a broken link: reported when it is read
        return [error.strerror]
    return [status.st_size, status.st_mtime_ns, status.st_mode]
