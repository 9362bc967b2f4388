"""Images in a NumPy file: what samplers of all projects write, and read back without running it."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from genjax.data.images import fit_image, one_line
from genjax.data.sources import Source
from genjax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class NpzSource(Source):
    """The arrays `images` (uint8 [size, H, W, C]) and `labels` (int32 [size])."""

    images: np.ndarray
    labels: np.ndarray

    def read(self, index, image_shape):
        index = np.asarray(index)
        images = [fit_image(self.images[i], image_shape) for i in index]
        return np.stack(images), self.labels[index]


def npz_source(path, split):
    """The source of a file, whatever the split; it has but one.

    Its arrays: `images` (or `arr_0`), uint8 [N, H, W, C] or [N, H, W]; and, if there are classes,
    `labels` (or `arr_1`), integers [N] from 0, and `class_names`, strings.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except Exception as error:  # bytes that are no archive can raise almost anything
        raise UserError(f"{path} is not a NumPy .npz file ({one_line(error)})") from error
    images = arrays.get("images", arrays.get("arr_0"))
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        is_so = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise UserError(f"{path}: wanted 'images', uint8 [N, H, W, C], it has {is_so}")
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] not in (1, 3):
        raise UserError(f"{path}: wanted 1 or 3 channels, last, its images are {images.shape}")
    labels, names = arrays.get("labels", arrays.get("arr_1")), ()
    if labels is not None:
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise UserError(f"{path}: wanted 'labels', integers [{len(images)}] from 0")
        names = arrays.get("class_names", np.arange(labels.max() + 1)).astype(str)
        if names.ndim != 1 or labels.max() >= len(names):
            raise UserError(f"{path}: its class_names do not name all its labels")
    described = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return NpzSource(
        name=f"npz:{path.resolve()}",
        version="0",
        split=split,
        fingerprint=hashlib.sha256(described.encode()).hexdigest(),
        class_names=tuple(map(str, names)),
        size=len(images),
        images=images,
        labels=np.zeros(len(images), np.int32) if labels is None else labels.astype(np.int32),
    )
