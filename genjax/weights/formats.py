"""Safetensors: files of named arrays that contain no code.

Everything is read from bytes in memory, and the results are read-only views of them, whatever sizes
a file states.
"""

import json
import struct

import numpy as np
from ml_dtypes import bfloat16

from genjax.archives import check_size

# By the names of the format.
DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Reads {name: array} from a file: the header's length, the header in JSON, the numbers.

    Raises:
      ValueError: the file is damaged, or has an array of a type that is not in `DTYPES`.
    """
    if len(data) < 8:
        raise ValueError("it is cut off")
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
                "dtype": str(kind),
                "shape": list(shape),
                "data_offsets": [int(start), int(end)],
            } if kind in DTYPES and 0 <= start <= end <= len(contents):
                check_size(name, shape, DTYPES[kind], end - start)
                array = np.frombuffer(contents[start:end], DTYPES[kind])
                arrays[name] = array.reshape(shape)
            case _:
                raise ValueError(f"its entry {name!a:.80} is not one of a tensor in the file")
    return arrays
