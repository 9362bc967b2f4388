"""Reads the pickle of a PyTorch checkpoint, which describes its tensors, without unpickling.

A pickle is a program for a stack machine that can call anything it can name. This module parses the
program (`pickletools.genops` runs nothing) and follows the few instructions that `torch.save` needs
for a dict of tensors, in pickle protocol 2. The names below are only compared: no name in a file is
ever looked up, nothing is called. Anything else is a ValueError.
"""

import dataclasses
import io
import pickletools
import warnings
from typing import Any

import numpy as np

MAX_PROGRAM = 2**20  # bytes; a tensor takes about 120

_DTYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
ORDERED_DICT = "collections OrderedDict"
REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"


# eq=False: nothing of a file is compared or hashed, which for nested tuples can take forever.
@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """Consecutive numbers that tensors are views of.

    Attributes:
      dtype: of the numbers.
      key: their name in the file.
      size: number of elements.
    """

    dtype: np.dtype
    key: str
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; offset and strides are counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, buffer: bytes | memoryview) -> np.ndarray:
        """Returns the tensor as a read-only view of the storage's bytes.

        Raises:
          ValueError: the view is larger than the storage, or reaches past it.
        """
        size, dtype = self.storage.size, self.storage.dtype
        if len(buffer) != size * dtype.itemsize:
            raise ValueError(f"storage {self.storage.key!a:.40} does not have the stated size")
        # Views with elements in common would make small files into arrays of any size.
        count, limit = 1, max(size, 1)
        for length in self.shape:
            count *= length
            if length > limit or count > limit:
                raise ValueError("a tensor is larger than its storage")
        last = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides))
        if max(self.strides, default=0) > limit or (count and self.offset + last >= size):
            raise ValueError("a tensor reaches past its storage")
        strides = [stride * dtype.itemsize for stride in self.strides]
        offset = self.offset * dtype.itemsize if count else 0
        return np.ndarray(self.shape, dtype, buffer, offset, strides)


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """A module and a name in it, as they stand in the file."""

    text: str


def interpret(stream: io.BytesIO) -> Any:
    """Returns the value of the program at the position of a stream, and moves to the program's end.

    The value consists of dicts with str keys, lists, tuples, `Tensor`, `Storage`, str, int, bool
    and None.

    Raises:
      ValueError: the program is damaged, too long, or would do more than build such a value.
    """
    start = stream.tell()
    stack, marks, memo = [], [], {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in a damaged string
            for opcode, argument, position in pickletools.genops(stream):
                if position - start > MAX_PROGRAM:
                    raise ValueError("its pickle is too long for a dict of tensors")
                _follow(opcode.name, argument, stack, marks, memo)
    except (IndexError, KeyError) as error:  # of the stack, the marks or the memo
        raise ValueError("its pickle is damaged") from error
    if len(stack) != 1:
        raise ValueError("its pickle is damaged")
    return stack[0]


def _follow(
    opcode: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[int, Any]
) -> None:
    """Applies one instruction to the machine's stack, marks and memo."""
    match opcode:
        case "PROTO":
            if argument != 2:
                raise ValueError(f"its pickle is of protocol {argument}, not 2")
        case "STOP":
            pass
        case "MARK":
            marks.append(len(stack))
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
            stack.append(argument)
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append(tuple(pop_from(stack, len(stack) - int(opcode[-1]))))
        case "TUPLE":
            stack.append(tuple(pop_from(stack, marks.pop())))
        case "EMPTY_LIST":
            stack.append([])
        case "APPEND" | "APPENDS":
            items = pop_from(stack, marks.pop() if opcode == "APPENDS" else len(stack) - 1)
            _expect(stack[-1], list).extend(items)
        case "EMPTY_DICT":
            stack.append({})
        case "SETITEM" | "SETITEMS":
            items = pop_from(stack, marks.pop() if opcode == "SETITEMS" else len(stack) - 2)
            keys = [_expect(key, str) for key in items[::2]]
            _expect(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            if argument not in (*_DTYPES, ORDERED_DICT, REBUILD_TENSOR):
                raise ValueError(f"its pickle asks for {argument!a:.80}, which no weights need")
            stack.append(Name(argument))
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(_result_of(_expect(name, Name).text, _expect(arguments, tuple)))
        case "BUILD":  # attributes of an OrderedDict: the versions of PyTorch's modules
            _expect(stack.pop(), dict)
            _expect(stack[-1], dict)
        case _:
            raise ValueError(f"its pickle has the instruction {opcode}, which no weights need")


def pop_from(stack: list[Any], index: int) -> list[Any]:
    """Takes the values from `index` on off the stack; an IndexError if it has no such index."""
    if not 0 <= index <= len(stack):
        raise IndexError
    items = stack[index:]
    del stack[index:]
    return items


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"its pickle has a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _storage(identity: Any) -> Storage:
    """Parses ("storage", type, key, device, size[, None]), a reference to bytes elsewhere."""
    match identity:
        case ("storage", Name(text=name), str(key), str(), int(size)) | (
            "storage",
            Name(text=name),
            str(key),
            str(),
            int(size),
            None,
        ) if name in _DTYPES and size >= 0:
            return Storage(np.dtype(_DTYPES[name]), key, size)
    raise ValueError("its pickle refers to something that is not a storage")


def tensor_of(storage: Storage, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Returns the tensor of these arguments of `_rebuild_tensor_v2`; a ValueError if it is none."""
    right = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= 8
    if not right or not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("its pickle makes something that is not a tensor")
    return Tensor(storage, offset, shape, strides)


def _result_of(name: str, arguments: tuple) -> dict | Tensor:
    """Returns the result of the call of a name; the last arguments of a tensor do not matter."""
    match name, arguments:
        case (str(), ()) if name == ORDERED_DICT:
            return {}
        case (str(), (Storage() as storage, offset, shape, strides, *_)) if name == REBUILD_TENSOR:
            return tensor_of(storage, offset, shape, strides)
    raise ValueError("its pickle makes something that is not a tensor")
