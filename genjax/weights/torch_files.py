"""Reads files of `torch.save` with one dict of tensors: the zip format, and the one before it.

Since 1.6 (2020) PyTorch writes a zip archive: NAME/data.pkl is a pickle that refers to storages,
and NAME/data/KEY are their bytes. Before, it wrote one stream: pickles of a magic number, of the
protocol, of the machine's properties, of the object and of the list of storage keys; then for each
of these keys the number of elements (int64) and the bytes. The published Inception has the older
format, as its size shows: 86,791 bytes more than its numbers, where a zip needs at least 113,529.
"""

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.weights.pickle_program import Storage, Tensor, interpret

Buffers = Mapping[str, bytes | memoryview]  # of storages, by their keys

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled
_LEGACY_PROTOCOL = 1001


def read_torch_zip(members: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Reads {name: array} from the members {name: bytes} of a zip archive.

    Raises:
      ValueError: the archive is damaged, or not one of a dict of tensors.
    """
    programs = [name for name in members if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise ValueError("it has not exactly one data.pkl")
    folder = programs[0].removesuffix("data.pkl")
    if members.get(f"{folder}byteorder", b"little") != b"little":
        raise ValueError("its numbers are not little-endian")
    buffers = {
        name.removeprefix(f"{folder}data/"): content
        for name, content in members.items()
        if name.startswith(f"{folder}data/")
    }
    return _arrays(_tensors(interpret(io.BytesIO(members[programs[0]]))), buffers)


def read_torch_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Reads {name: array} from the bytes of a file in the older format.

    Raises:
      ValueError: the file is damaged, or not one of a dict of tensors.
    """
    stream = _legacy_stream(data)
    tensors = _tensors(interpret(stream))
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    return _arrays(tensors, _legacy_buffers(data, stream, dtypes))


def read_torch_storage(data: bytes | bytearray) -> tuple[Storage, bytes | memoryview]:
    """Reads a storage and its numbers from the bytes of a file of one storage.

    Raises:
      ValueError: the file is damaged, or not one of a storage.
    """
    stream = _legacy_stream(data)
    storage = interpret(stream)
    if type(storage) is not Storage:
        raise ValueError("it holds something other than a storage")
    buffers = _legacy_buffers(data, stream, {storage.key: storage.dtype})
    if storage.key not in buffers:
        raise ValueError("it lacks the numbers of a storage")
    return storage, buffers[storage.key]


def _legacy_stream(data: bytes | bytearray) -> io.BytesIO:
    """Opens the bytes of a file at the start of its object."""
    if not data.startswith(LEGACY_START):
        raise ValueError("it holds a storage in another format")
    stream = io.BytesIO(data)
    stream.seek(len(LEGACY_START))
    if interpret(stream) != _LEGACY_PROTOCOL:
        raise ValueError(f"it is not of PyTorch's protocol {_LEGACY_PROTOCOL}")
    machine = interpret(stream)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    return stream


def _legacy_buffers(
    data: bytes | bytearray, stream: io.BytesIO, dtypes: dict[str, np.dtype]
) -> Buffers:
    """Reads the storages {key: dtype}, which follow the object and end with the file."""
    keys = interpret(stream)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("it has no list of its storages")

    contents, position, buffers = memoryview(data).toreadonly(), stream.tell(), {}
    for key in keys:
        if key not in dtypes or key in buffers:
            raise ValueError(f"storage {key!a:.40} belongs to no tensor")
        if position + 8 > len(data):
            raise ValueError("it is cut off")
        (size,) = struct.unpack_from("<q", data, position)
        start, position = position + 8, position + 8 + size * dtypes[key].itemsize
        if not start <= position <= len(data):
            raise ValueError("it is cut off")
        buffers[key] = contents[start:position]
    if position != len(data):
        raise ValueError("there are bytes after its end")
    return buffers


def _tensors(value: Any) -> dict[str, Tensor]:
    if type(value) is not dict:
        raise ValueError("it holds something other than a dict of tensors")
    for name, tensor in value.items():
        if type(tensor) is not Tensor:
            raise ValueError(f"its entry {name!a:.80} is not a tensor")
    return value


def _arrays(tensors: dict[str, Tensor], buffers: Buffers) -> dict[str, np.ndarray]:
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.storage.key not in buffers:
            raise ValueError(f"it lacks the numbers of {name!a:.80}")
        arrays[name] = tensor.array(buffers[tensor.storage.key])
    return arrays
