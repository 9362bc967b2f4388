"""Reads zip archives of arrays: NumPy's .npz, and the archives that `torch.save` writes.

There is one policy for every .npz, whoever reads it:

  members      .npy arrays of integers, floats, booleans or text, stored or deflated, as
               `numpy.savez` and `numpy.savez_compressed` write them; never objects, which would
               have to be unpickled
  sizes        an archive may expand to twice its file's size or to MAX_EXPANDED bytes, whichever
               is more; memory is allocated for what is read, never for what a header claims

What an archive says about itself is compared with its contents; a difference is a ValueError.
"""

import contextlib
import errno
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator

import numpy as np

START = b"PK\x03\x04"  # of every archive that is not empty
MAX_EXPANDED = 2**31  # bytes
MAX_LENGTH = 2**31  # of an axis of an array

_MAX_DIRECTORY = 2**20  # bytes of an archive's list of members: about 10,000 of them
_CHUNK = 2**18
_NPY_START = struct.Struct("<8sH")  # magic and version, length of the header
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
# NumPy's own reader of this header evaluates it as Python literals and warns, or worse, of others.
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|](?:f[248]|[iu][1248]|b1|[SU][0-9]{1,6}))', "
    rb"'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\} *\n"
)

File = str | os.PathLike | bytes  # the path of a file, or its contents


def member_names(file: File) -> list[str]:
    """Lists the members of an archive; of a .npz these are the arrays' names and ".npy".

    Raises:
      ValueError: the archive is damaged, or its list of members is too large.
      OSError: the file cannot be read.
    """
    with _opened(file) as (archive, _):
        return archive.namelist()


def read_npz(file: File, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of a NumPy archive, without ever unpickling.

    Args:
      file: the archive.
      names: of the arrays to read, as far as they exist; by default all.

    Returns:
      {name: read-only array in native byte order}.

    Raises:
      ValueError: the archive is damaged, or the policy of this module forbids a member.
      OSError: the file cannot be read.
    """
    arrays = {}
    with _opened(file) as (archive, size):
        kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        for info in _members(archive, kinds, max(2 * size, MAX_EXPANDED)):
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in arrays:
                raise ValueError(f"its member {info.filename!a:.80} is not an array of its own")
            if names is None or name in names:
                with archive.open(info) as stream:
                    arrays[name] = _array(name, stream, info.file_size)
    return arrays


def read_stored_zip(data: bytes) -> dict[str, bytes]:
    """Reads all members of a zip archive that is not compressed, as PyTorch writes it.

    Raises:
      ValueError: the archive is damaged, or its members are compressed or overlap.
    """
    members = {}
    with _opened(data) as (archive, size):
        for info in _members(archive, (zipfile.ZIP_STORED,), size):
            if info.filename in members:
                raise ValueError(f"it has two members {info.filename!a:.80}")
            members[info.filename] = archive.read(info)
    return members


class _Bounded(io.BufferedReader):
    """A file of which at most `limit` bytes are read in one call.

    `zipfile` reads the list of members in one call, and takes ten times its size in memory.
    """

    limit: int | None = _MAX_DIRECTORY

    def read(self, size: int | None = -1) -> bytes:
        if self.limit is not None and (size is None or size > self.limit):
            raise ValueError("it has too many members")
        return super().read(size)


@contextlib.contextmanager
def _opened(file: File) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Gives an archive and the size of its file; errors of its contents become ValueErrors."""
    try:
        raw = io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb", buffering=0)
        with raw:
            size = raw.seek(0, os.SEEK_END)
            bounded = _Bounded(raw)
            with zipfile.ZipFile(bounded) as archive:
                bounded.limit = None
                yield archive, size
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OverflowError,
        OSError,
        RuntimeError,  # encrypted, and, below it, kinds that zipfile does not know
    ) as error:
        # A damaged archive makes zipfile seek to impossible positions.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"its zip archive is damaged ({error})") from error


def _members(archive: zipfile.ZipFile, kinds: tuple[int, ...], limit: int) -> list[zipfile.ZipInfo]:
    """Lists the members; a ValueError if they are compressed in another way, or too large."""
    members = archive.infolist()
    if any(info.compress_type not in kinds for info in members):
        raise ValueError("its members are compressed in a way that is not read here")
    if sum(info.file_size for info in members) > limit:
        raise ValueError(f"its members overlap or expand to more than {limit} bytes")
    return members


def _array(name: str, stream: io.BufferedIOBase, size: int) -> np.ndarray:
    """Reads one .npy file, which the archive says has `size` bytes."""
    magic, length = _NPY_START.unpack(stream.read(_NPY_START.size).ljust(_NPY_START.size))
    header = _NPY_HEADER.fullmatch(stream.read(length)) if magic == _NPY_MAGIC else None
    if not header:
        raise ValueError(f"{name!a:.80} is not an array of numbers or text")
    descr, fortran_order, axes = (group.decode() for group in header.groups())
    dtype, shape = np.dtype(descr), [int(axis) for axis in axes.split(",") if axis.strip()]
    count = size - _NPY_START.size - length
    check_size(name, shape, dtype, count)
    content = bytearray()
    while chunk := stream.read(_CHUNK):
        content += chunk
    if len(content) != count:
        raise ValueError(f"{name!a:.80} is cut off")
    array = np.frombuffer(content, dtype)
    if dtype.kind == "U" and (array.view(f"{descr[0]}u4") > 0x10FFFF).any():
        raise ValueError(f"{name!a:.80} contains text that is not Unicode")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    array = array.reshape(shape, order="F" if fortran_order == "True" else "C")
    array.flags.writeable = False
    return array


def check_size(name: str, shape: list, dtype: np.dtype, size: int) -> None:
    """Raises a ValueError unless an array of this shape and type has `size` bytes.

    The shape is as stated in a file, so its elements may be anything.
    """
    valid = all(type(length) is int and 0 <= length < MAX_LENGTH for length in shape)
    if not valid or len(shape) > 8 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name!a:.80} does not have the size that it should have")
