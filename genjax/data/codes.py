"""Codes of a VQ model as a dataset of integer images: `codes:/path.npz`.

The file holds integer arrays "train" and "test" [N, H, W] with values in 0 .. num_codes - 1, the
integer "num_codes" and, where there are classes, "train_labels" and "test_labels" [N].
"""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import numpy as np

from genjax.data.sources import Source
from genjax.errors import UserError

PREFIX = "codes:"


@dataclasses.dataclass(frozen=True, eq=False)
class CodesSource(Source):
    """A split of a file of codes, `path`, kept as uint16."""

    path: Path
    dtype = np.uint16

    def read(self, index, image_shape):
        with _open(self.path) as file:
            codes = file[self.split][np.asarray(index)][..., None]
            if codes.shape[1:] != tuple(image_shape):
                raise UserError(
                    f"{self.path} holds codes of shape {codes.shape[1:]}, not "
                    f"config.data.image_shape={tuple(image_shape)}"
                )
            if codes.min() < 0 or codes.max() >= int(file["num_codes"]):
                raise UserError(f"{self.path}: a code is not in 0 .. num_codes - 1")
            labels = f"{self.split}_labels"
            if labels not in file:
                return codes.astype(self.dtype), np.zeros(len(index), np.int32)
            return codes.astype(self.dtype), file[labels][np.asarray(index)].astype(np.int32)


def codes_source(name, split):
    """The source of `codes:/path.npz`; split is "train" or "test"."""
    path = _path(name)
    if split not in ("train", "test"):
        raise UserError(f"a file of codes has the splits train and test, not '{split}'")
    num_codes(name)
    with _open(path) as file:
        size, shape = len(file[split]), file[split].shape
        if file[split].dtype.kind not in "iu" or len(shape) != 3:
            raise UserError(f"{path}: '{split}' is not an integer array [N, H, W]")
        labels = file["train_labels"] if "train_labels" in file else None
    names = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CodesSource(name, "1", split, digest, names, size, path)


def open_codes(name):
    """The NumPy file of `codes:/path.npz`, to be closed; UserError if it is none."""
    return _open(_path(name))


def num_codes(name):
    """K of `codes:/path.npz`."""
    path = _path(name)
    with _open(path) as file:
        missing = [k for k in ("train", "test", "num_codes") if k not in file]
        if missing:
            raise UserError(f"{path} lacks '{missing[0]}'; it holds: {', '.join(file)}")
        count = int(file["num_codes"])
    if not 2 <= count <= 2**16:
        raise UserError(f"{path}: num_codes={count} is not between 2 and 65,536")
    return count


def _path(name):
    return Path(name.removeprefix(PREFIX)).expanduser()


def _open(path):
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"config.data.name: {path} is not a .npz file of codes ({error})"
        ) from error
