"""Writes arrays as safetensors, for others to read."""

import json
import struct

import flax.traverse_util
import numpy as np

from genjax.files import whole_file

_DTYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "int32": "I32"}


def write_safetensors(path, arrays, metadata=None):
    """Writes {name: array} as one file, whole or not at all.

    Args:
      path: where to.
      arrays: by name, or nested dicts of them, whose names are then joined by dots.
      metadata: {name: text}, where they come from.

    Raises:
      ValueError: an array of a kind that is not written here.
    """
    flat = flax.traverse_util.flatten_dict(dict(arrays), sep=".")
    flat = {name: np.ascontiguousarray(array) for name, array in sorted(flat.items())}
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = {name: str(text) for name, text in metadata.items()}
    for name, array in flat.items():
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"{name} is of {array.dtype}")
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": (offset, offset + array.nbytes),
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants its numbers aligned
    with whole_file(path) as partial, open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in flat.values():
            file.write(array.tobytes())
