"""Array types for annotations: `Float[Array, "b h w c"]`; see `genjax.shapes`."""

from typing import Any, TypeAlias

import jax
import numpy as np

from genjax.shapes import Bool, Float, Int, Key, Num, Shape, Shaped, UInt8

Array: TypeAlias = jax.Array
# What a function takes that works on arrays of the host and of a device alike.
AnyArray: TypeAlias = jax.Array | np.ndarray

# Nested dictionaries of arrays.
Params: TypeAlias = Any
ModelState: TypeAlias = dict[str, Any]

__all__ = [
    "AnyArray",
    "Array",
    "Bool",
    "Float",
    "Int",
    "Key",
    "ModelState",
    "Num",
    "Params",
    "Shape",
    "Shaped",
    "UInt8",
]
