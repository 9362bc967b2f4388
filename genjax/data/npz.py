"""Images of a NumPy file, which is how the samplers of most projects write theirs."""

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from genjax.archives import read_npz
from genjax.data.images import fit_image
from genjax.data.source import Index, Source
from genjax.errors import UserError, one_line
from genjax.files import lfs_hint
from genjax.shapes import Int, Shape, UInt8


@dataclasses.dataclass(frozen=True, eq=False)
class NpzSource(Source):
    """Images and labels in memory."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        index = np.asarray(index)
        images = [fit_image(self.images[i], image_shape) for i in index]
        return np.stack(images), self.labels[index]


def npz_source(path: str | os.PathLike, split: str) -> NpzSource:
    """Reads a .npz file as the data of a split, whatever the split is called.

    Args:
      path: a file of the arrays `images` (or `arr_0`), uint8 [N, H, W, C] or [N, H, W]; and, if
        there are classes, `labels` (or `arr_1`), integers [N] from 0, and `class_names`, strings.
      split: its name.

    Raises:
      UserError: the file is missing, cannot be read (see `genjax.archives`), or holds other arrays.
    """
    path = Path(path)
    try:
        arrays = read_npz(path)
        with open(path, "rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        reason = lfs_hint(path) or one_line(error)
        raise UserError(f"{path} is not a NumPy .npz file ({reason})") from error
    images = _images(arrays, path)
    labels, class_names = _labels(arrays, len(images), path)
    return NpzSource(
        name=f"npz:{path.resolve()}",
        version="0",
        split=split,
        fingerprint=fingerprint,
        class_names=class_names,
        size=len(images),
        images=images,
        labels=labels,
    )


def _images(arrays: dict[str, np.ndarray], path: Path) -> UInt8[np.ndarray, "n h w c"]:
    images = arrays.get("images", arrays.get("arr_0"))
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        is_so = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise UserError(f"{path}: 'images' must be uint8 [N, H, W, C], it has {is_so}")
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] not in (1, 3):
        raise UserError(f"{path}: images must have 1 or 3 channels, last; it has {images.shape}")
    return images


def _labels(
    arrays: dict[str, np.ndarray], count: int, path: Path
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Returns the labels of `count` images and the names of the classes."""
    labels = arrays.get("labels", arrays.get("arr_1"))
    if labels is None:
        return np.zeros(count, np.int32), ()
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(f"{path}: 'labels' must be integers [{count}] from 0")
    try:
        names = arrays.get("class_names", np.arange(labels.max() + 1)).astype(str)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: its class_names are not text ({error})") from error
    if names.ndim != 1 or labels.max() >= len(names):
        raise UserError(f"{path}: its class_names do not name all its labels")
    return labels.astype(np.int32), tuple(map(str, names))
