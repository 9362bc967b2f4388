"""Files of named arrays that hold no code: safetensors and NumPy's npz; and zip archives.

All that is read comes from bytes in memory, and what comes back are read-only views of them or as
many bytes again at most, whatever a file says of its sizes.
"""

import io
import json
import math
import re
import struct
import zipfile

import numpy as np

_MAX_MEMBERS = 20_000
_MAX_LENGTH = 2**31  # of an axis
_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
# NumPy's own reader of this header evaluates it as Python literals and warns, or worse, of others.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|](?:f[248]|[iu][1248]|b1))', "
    rb"'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)


def read_stored_zip(data):
    """{name: bytes} of a zip archive whose members are not compressed, as torch and NumPy write it.

    Raises:
      ValueError: it is damaged, or could grow: compressed, overlapping, of too many members.
    """
    # Each entry of the directory begins so; zipfile makes an object of it, however many there are.
    if data.count(b"PK\x01\x02") > _MAX_MEMBERS:
        raise ValueError("it has too many members")
    members, total = {}, 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                total += info.file_size
                if info.compress_type != zipfile.ZIP_STORED or total > len(data):
                    raise ValueError("its members are compressed or overlap")
                if info.filename in members:
                    raise ValueError(f"it has two members {info.filename!a:.80}")
                members[info.filename] = archive.read(info)
    except (
        zipfile.BadZipFile,
        struct.error,
        OSError,
        EOFError,
        OverflowError,
        RuntimeError,  # encrypted, and, below it, kinds that zipfile does not know
    ) as error:
        raise ValueError(f"its zip archive is damaged ({error})") from error
    return members


def read_npz(members):
    """{name: array} from the members of a file of `numpy.savez`; ValueError if it is not one."""
    arrays = {}
    for name, content in members.items():
        header = _NPY_HEADER.match(content)
        if not header:
            raise ValueError(f"{name!a:.80} is not an array of numbers")
        dtype, fortran_order, shape = (group.decode() for group in header.groups())
        shape = [int(length) for length in shape.split(",") if length.strip()]
        order = "F" if fortran_order == "True" else "C"
        data = memoryview(content)[header.end() :]
        arrays[name.removesuffix(".npy")] = _array(name, data, np.dtype(dtype), shape, order)
    return arrays


def read_safetensors(data):
    """{name: array} from the bytes of a file: header's length, header in JSON, numbers."""
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise ValueError("it is cut off")
    try:
        header = json.loads(data[8 : 8 + length])
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if type(header) is not dict:
        raise ValueError("its header is not a table of tensors")
    header.pop("__metadata__", None)
    contents, arrays = memoryview(data)[8 + length :], {}
    for name, entry in header.items():
        match entry:
            case {
                "dtype": str(dtype),
                "shape": list(shape),
                "data_offsets": [int(begin), int(end)],
            } if dtype in _SAFETENSORS_DTYPES and 0 <= begin <= end <= len(contents):
                dtype = np.dtype(_SAFETENSORS_DTYPES[dtype])
                arrays[name] = _array(name, contents[begin:end], dtype, shape, "C")
            case _:
                raise ValueError(f"its entry {name!a:.80} is not one of a tensor in the file")
    return arrays


def _array(name, data, dtype, shape, order):
    right = all(type(length) is int and 0 <= length < _MAX_LENGTH for length in shape)
    if not right or len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name!a:.80} has not the size it should have")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
