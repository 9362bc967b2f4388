"""Codes of a VQ model as a dataset of integer images: `codes:/path.npz`.

The file contains integer arrays "train" and "test" [N, H, W] with values in 0 .. num_codes - 1, the
integer "num_codes" and, where there are classes, "train_labels" and "test_labels" [N].
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from genjax.archives import member_names, read_npz
from genjax.data.source import Index, Source
from genjax.errors import UserError
from genjax.files import lfs_hint, user_path
from genjax.shapes import Int, Num, Shape

PREFIX = "codes:"


@dataclasses.dataclass(frozen=True, eq=False)
class CodesSource(Source):
    """A split of the file of codes `path`; the codes are read as uint16."""

    path: Path
    dtype: ClassVar[type] = np.uint16

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[Num[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        arrays = _split(self.path, self.split, self.fingerprint)
        codes = arrays[self.split][np.asarray(index)][..., None]
        if codes.shape[1:] != tuple(image_shape):
            raise UserError(
                f"{self.path} holds codes of shape {codes.shape[1:]}, not "
                f"config.data.image_shape={tuple(image_shape)}"
            )
        if codes.min() < 0 or codes.max() >= int(arrays["num_codes"]):
            raise UserError(f"{self.path}: a code is not in 0 .. num_codes - 1")
        labels = arrays.get(f"{self.split}_labels")
        if labels is None:
            return codes.astype(self.dtype), np.zeros(len(index), np.int32)
        return codes.astype(self.dtype), labels[np.asarray(index)].astype(np.int32)


def codes_source(name: str, split: str) -> CodesSource:
    """Finds a split, "train" or "test", of `codes:/path.npz`.

    Raises:
      UserError: there is no such split, or the file cannot be read or contains other arrays.
    """
    path = _path(name)
    if split not in ("train", "test"):
        raise UserError(f"a file of codes has the splits train and test, not '{split}'")
    num_codes(name)
    arrays = _read(path, (split, "train_labels"))
    codes, labels = arrays[split], arrays.get("train_labels")
    if codes.dtype.kind not in "iu" or codes.ndim != 3:
        raise UserError(f"{path}: '{split}' is not an integer array [N, H, W]")
    names = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CodesSource(name, "1", split, digest, names, len(codes), path)


def read_codes(name: str) -> dict[str, np.ndarray]:
    """Reads all arrays of `codes:/path.npz`; a UserError if it is not a NumPy file."""
    return _read(_path(name))


def num_codes(name: str) -> int:
    """Returns K, the number of codes, of `codes:/path.npz`; a UserError if the file lacks it."""
    path = _path(name)
    with _errors(path):
        names = [name.removesuffix(".npy") for name in member_names(path)]
    missing = [k for k in ("train", "test", "num_codes") if k not in names]
    if missing:
        raise UserError(f"{path} lacks '{missing[0]}'; it holds: {', '.join(names)}")
    count = _read(path, ("num_codes",))["num_codes"]
    if count.size != 1 or count.dtype.kind not in "iuf" or not 2 <= count.item() <= 2**16:
        raise UserError(f"{path}: num_codes={count.tolist()} is not between 2 and 65,536")
    return int(count.item())


def _path(name: str) -> Path:
    return user_path(name.removeprefix(PREFIX), "config.data.name")


# The codes of a split are decompressed once a process, not once a batch.
@functools.lru_cache(maxsize=2)
def _split(path: Path, split: str, fingerprint: str) -> dict[str, np.ndarray]:
    return _read(path, (split, f"{split}_labels", "num_codes"))


def _read(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    with _errors(path):
        return read_npz(path, names)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns errors of a file into a UserError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.data.name: {path} is not a .npz file of codes ({lfs_hint(path) or error})"
        ) from error
