"""Shapes in annotations, for modules that do not import JAX: `UInt8[np.ndarray, "n h w c"]`.

They are jaxtyping's where that package is installed, as it is for the tests, which check every call
against them. Without it they mean the array alone; nothing is checked, nothing is needed. Reading
data needs no JAX: the processes that decode images start in half the time without it.
"""

from typing import Any, TypeAlias

try:
    from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8
except ImportError:

    class _Shapeless:
        """Stands for every kind of array type: `_Shapeless[X, "b c"]` is X."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Float = Int = Key = Num = Shaped = UInt8 = _Shapeless

Shape: TypeAlias = tuple[int, int, int]  # height, width, channels

__all__ = ["Bool", "Float", "Int", "Key", "Num", "Shape", "Shaped", "UInt8"]
