"""Reads HDF5 files of the kind that h5py writes by default, which is how Keras saved weights.

That is a small part of the format (HDF5 File Format Specification 3.0): superblock version 0,
groups as symbol tables (B-tree version 1, local heap), object headers version 1, contiguous
datasets without compression. Attributes are ignored. Nothing in a file is run, every address is
checked against the file's length, and no object is visited twice, so a damaged or malicious file
costs no more than its size.
"""

import math
import struct

import numpy as np

from genjax.archives import MAX_LENGTH

Buffer = memoryview | bytes

MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_OBJECTS = 20_000
_UNDEFINED = 2**64 - 1

# Kinds of messages in an object header.
_DATASPACE, _DATATYPE, _LAYOUT, _CONTINUATION, _SYMBOL_TABLE = 0x01, 0x03, 0x08, 0x10, 0x11


def read_hdf5(data: bytes) -> dict[str, np.ndarray]:
    """Reads all datasets of floating-point numbers: {path in the file: read-only array}.

    Datasets of other types, such as text, are returned as empty arrays.

    Raises:
      ValueError: the file is damaged, or uses parts of the format that are not read here.
    """
    try:
        return _File(data).read()
    except struct.error as error:
        raise ValueError("it is cut off") from error


class _File:
    """A file, and the addresses in it that were visited."""

    def __init__(self, data: bytes):
        if len(data) < 96 or data[8] != 0 or data[13:15] != b"\x08\x08":
            raise ValueError("it is HDF5 of a kind that is not read here, see h5py's libver")
        self._data, self._visited = memoryview(data), set()

    def read(self) -> dict[str, np.ndarray]:
        (root,) = struct.unpack_from("<Q", self._data, 64)
        arrays, groups = {}, [("", root)]
        while groups:
            prefix, address = groups.pop()
            messages = self._messages(address)
            table = messages.get(_SYMBOL_TABLE)
            if table is not None:
                tree, heap = struct.unpack_from("<QQ", table)
                groups += [(f"{prefix}/{name}", to) for name, to in self._entries(tree, heap)]
            elif _LAYOUT in messages:
                arrays[prefix.removeprefix("/")] = self._array(prefix, messages)
        return arrays

    def _visit(self, address: int) -> None:
        if address in self._visited or len(self._visited) > _MAX_OBJECTS:
            raise ValueError("its objects refer to each other in a circle, or are too many")
        self._visited.add(address)
        if not 0 < address < len(self._data):
            raise ValueError("an address in it lies outside of it")

    def _messages(self, address: int) -> dict[int, Buffer]:
        """Reads an object header: {kind of message: its contents}, the last of each kind."""
        self._visit(address)
        version, _, _, _, size = struct.unpack_from("<BBHII", self._data, address)
        if version != 1:
            raise ValueError("it has object headers of another version")
        messages, pieces = {}, [(address + 16, size)]
        while pieces:
            start, size = pieces.pop()
            end = start + size
            if not 0 < start <= end <= len(self._data):
                raise ValueError("an object header in it is cut off")
            while start + 8 <= end:
                kind, length = struct.unpack_from("<HH", self._data, start)
                body = self._data[start + 8 : start + 8 + length]
                start += 8 + length
                if kind == _CONTINUATION:
                    address, length = struct.unpack_from("<QQ", body)
                    self._visit(address)
                    pieces.append((address, length))
                else:
                    messages[kind] = body
        return messages

    def _entries(self, tree: int, heap: int) -> list[tuple[str, int]]:
        """Reads a group: [(name, address of an object header)]."""
        if bytes(self._data[heap : heap + 4]) != b"HEAP":
            raise ValueError("a group in it has no names")
        _, _, names = struct.unpack_from("<QQQ", self._data, heap + 8)
        entries, nodes = [], [tree]
        while nodes:
            node = nodes.pop()
            self._visit(node)
            kind = bytes(self._data[node : node + 4])
            if kind == b"TREE":
                (count,) = struct.unpack_from("<H", self._data, node + 6)
                # Keys and children alternate, a key first.
                children = struct.unpack_from(f"<{2 * count}Q", self._data, node + 24)[1::2]
                nodes += reversed(children)
            elif kind == b"SNOD":
                (count,) = struct.unpack_from("<H", self._data, node + 6)
                for i in range(count):
                    name, address = struct.unpack_from("<QQ", self._data, node + 8 + 40 * i)
                    entries.append((self._text(names + name), address))
            else:
                raise ValueError("a group in it is of another kind")
        return entries

    def _text(self, start: int) -> str:
        text = bytes(self._data[start : start + 256]).split(b"\0")[0]
        return text.decode("utf-8", "replace")

    def _array(self, name: str, messages: dict[int, Buffer]) -> np.ndarray:
        dtype = _dtype(name, messages.get(_DATATYPE))
        if dtype is None:
            return np.empty(0)
        space = messages.get(_DATASPACE, b"")
        if len(space) < 4 or space[0] != 1 or space[1] > 8:
            raise ValueError(f"{name!a:.80} has no shape")
        shape = struct.unpack_from(f"<{space[1]}Q", space, 8)
        layout = messages[_LAYOUT]
        if bytes(layout[:2]) != b"\x03\x01":
            raise ValueError(f"{name!a:.80} is compressed or in pieces")
        address, size = struct.unpack_from("<QQ", layout, 2)
        too_long = max(shape, default=0) >= MAX_LENGTH
        if too_long or address == _UNDEFINED or math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{name!a:.80} does not have the size that it should have")
        if address + size > len(self._data):
            raise ValueError("it is cut off")
        return np.frombuffer(self._data[address : address + size], dtype).reshape(shape)


def _dtype(name: str, message: Buffer | None) -> np.dtype | None:
    """Reads a type: of little-endian IEEE numbers; None for any other, such as text."""
    if message is None or len(message) < 8:
        raise ValueError(f"{name!a:.80} has no type")
    kind, order = message[0] & 15, message[1] & 1
    (size,) = struct.unpack_from("<I", message, 4)
    if kind != 1 or order or size not in (2, 4, 8):
        return None
    return np.dtype(f"<f{size}")
