"""Reads any file of weights, and runs none."""

import hashlib
from pathlib import Path

from genjax.errors import UserError
from genjax.weights import hdf5
from genjax.weights.formats import read_npz, read_safetensors, read_stored_zip
from genjax.weights.module_pickle import read_module_pickle
from genjax.weights.torch_files import LEGACY_START, read_torch_legacy, read_torch_zip

MAX_BYTES = 2**30  # they are read as a whole


def read_arrays(path):
    """Arrays of a file of PyTorch (a dict of tensors), safetensors, NumPy (npz, uncompressed), HDF5
    (as Keras saves weights) or a pickle of PyTorch's modules (as EDM's are).

    The kind is told by the contents. Nothing in the file is run, and it cannot take more memory
    than twice its size.

    Returns:
      ({name: read-only array}, SHA-256 of the very bytes that were read).

    Raises:
      UserError: it cannot be read, or holds something other than arrays.
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
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot read the weights {path}: {reason}") from error


def _arrays(data):
    if data.startswith(b"PK\x03\x04"):
        members = read_stored_zip(data)
        if members and all(name.endswith(".npy") for name in members):
            return read_npz(members)
        return read_torch_zip(members)
    if data.startswith(LEGACY_START):
        return read_torch_legacy(data)
    if data.startswith(hdf5.MAGIC):
        return hdf5.read_hdf5(data)
    if data[8:9] == b"{":
        return read_safetensors(data)
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return read_module_pickle(data)
    raise ValueError("it is not of PyTorch, safetensors, NumPy (npz), HDF5, or a pickle of modules")
