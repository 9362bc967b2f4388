"""Writes checkpoints as `torch.save` does, by hand, so that no test needs PyTorch."""

import io
import struct
import zipfile

import numpy as np

STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "int64": "Long",
    "int32": "Int",
    "uint8": "Byte",
    "bool": "Bool",
}
LEGACY_HEAD = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number
    b"\x80\x02M\xe9\x03."  # protocol 1001
    b"\x80\x02}(X\x10\x00\x00\x00protocol_versionM\xe9\x03X\x0d\x00\x00\x00little_endian\x88u."
)


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, storage, size, shape, strides, offset=0, legacy=False):
    """The instructions that make one tensor."""
    identity = text("storage") + f"ctorch\n{storage}Storage\n".encode() + text(key) + text("cpu")
    identity = b"(" + identity + number(size) + (b"N" if legacy else b"") + b"tQ"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + identity
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def program(entries):
    """A pickle of an OrderedDict {name: instructions}."""
    items = b"".join(text(name) + value for name, value in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + items + b"u."


def tensor_of(key, array, legacy=False):
    strides = [n // array.itemsize for n in array.strides]
    storage = STORAGES[array.dtype.name]
    return tensor(key, storage, array.size, array.shape, strides, legacy=legacy)


def zip_of(members, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def torch_zip(arrays):
    """Bytes of the zip format of {name: C-contiguous array}."""
    members = {f"a/data/{i}": array.tobytes() for i, array in enumerate(arrays.values())}
    entries = {name: tensor_of(str(i), a) for i, (name, a) in enumerate(arrays.items())}
    head = {"a/data.pkl": program(entries), "a/byteorder": "little", "a/version": "3\n"}
    return zip_of(head | members)


def torch_legacy(arrays):
    """Bytes of the format before 1.6."""
    keys = {name: str(94_000_000 + i) for i, name in enumerate(arrays)}
    entries = {name: tensor_of(keys[name], array, legacy=True) for name, array in arrays.items()}
    data = LEGACY_HEAD + program(entries)
    data += b"\x80\x02](" + b"".join(map(text, keys.values())) + b"e."
    for array in arrays.values():
        data += struct.pack("<q", array.size) + array.tobytes()
    return data


def npz(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
