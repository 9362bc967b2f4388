"""Writes arrays as safetensors, for other programs to read."""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from genjax.files import whole_file
from genjax.weights.formats import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes {name: array} as one file, atomically.

    Args:
      path: the file.
      arrays: by name, or nested dicts of them, whose names are then joined by dots.
      metadata: {name: text}, their provenance.

    Raises:
      ValueError: an array has a type that the format lacks.
    """
    flat = flax.traverse_util.flatten_dict(dict(arrays), sep=".")
    flat = {name: np.asarray(array, order="C") for name, array in sorted(flat.items())}
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = {name: str(text) for name, text in metadata.items()}
    for name, array in flat.items():
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} is of {array.dtype}, which safetensors does not have")
        header[name] = {
            "dtype": _NAMES[array.dtype],
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
