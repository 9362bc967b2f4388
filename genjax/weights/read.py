"""Reads weights from files of any kind, without running anything in them."""

import hashlib
import os
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16

from genjax import archives
from genjax.errors import UserError, one_line
from genjax.files import lfs_hint
from genjax.weights import hdf5
from genjax.weights.formats import read_safetensors
from genjax.weights.module_pickle import read_module_pickle
from genjax.weights.torch_files import LEGACY_START, read_torch_legacy, read_torch_zip

MAX_BYTES = 2**30  # of a file; it is read into memory


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """Reads the arrays of a file of weights.

    The contents tell which kind of file it is: PyTorch (a dict of tensors), safetensors, NumPy
    (npz), HDF5 (as Keras saves weights) or a pickle of PyTorch's modules (as EDM's are). Nothing in
    the file is run. It takes at most twice its size in memory, and a compressed npz what
    `genjax.archives` allows.

    Returns:
      ({name: read-only array}, SHA-256 of the bytes that were read).

    Raises:
      UserError: the file cannot be read, or contains anything but arrays.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"there is no file of weights at {path}")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is too large for a file of weights: over {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}") from error
    try:
        return _arrays(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        reason = lfs_hint(path) or one_line(error)[:300]
        raise UserError(f"cannot read the weights {path}: {reason}") from error


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(archives.START):
        names = archives.member_names(data)
        if names and all(name.endswith(".npy") for name in names):
            return archives.read_npz(data)
        return read_torch_zip(archives.read_stored_zip(data))
    if data.startswith(LEGACY_START):
        return read_torch_legacy(data)
    if data.startswith(hdf5.MAGIC):
        return hdf5.read_hdf5(data)
    if data[8:9] == b"{":
        return read_safetensors(data)
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return read_module_pickle(data)
    raise ValueError("it is not of PyTorch, safetensors, NumPy (npz), HDF5, or a pickle of modules")


def finite_float32(array: np.ndarray, where: str) -> np.ndarray:
    """Returns an array of weights, of any width of floats, as float32.

    Args:
      array: of any shape.
      where: what it is, the start of messages.

    Raises:
      UserError: it is not of floats, or not finite, or not within float32.
    """
    if array.dtype.kind != "f" and array.dtype != bfloat16:
        raise UserError(f"{where} is {array.dtype}, not floats")
    with np.errstate(over="ignore"):
        array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{where} is not finite")
    return array
