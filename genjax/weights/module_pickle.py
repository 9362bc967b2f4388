"""Reads the tensors of PyTorch modules pickled as objects, as EDM and StyleGAN publish theirs.

Such a pickle contains the source code of its classes, which unpickling would run. This module
follows the program without running any of it (see `pickle_program`): whatever a file names, creates
or calls becomes a `_Call`, a record of the request, and nothing else. Then the tensors are
collected from the states of the modules,

  {"_parameters": {name: tensor}, "_buffers": {name: tensor}, "_modules": {name: module}}.

Their numbers are files of `torch.save` as bytes inside the pickle.
"""

import dataclasses
import io
import pickletools
import warnings
from typing import Any

import numpy as np

from genjax.weights.pickle_program import (
    ORDERED_DICT,
    REBUILD_TENSOR,
    Name,
    Storage,
    pop_from,
    tensor_of,
)
from genjax.weights.torch_files import read_torch_storage

MAX_INSTRUCTIONS = 2**20  # EDM's files take about 20,000
MAX_MODULES, MAX_NAME = 2**14, 500

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
_VALUES += ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE8", "BYTEARRAY8")


# eq=False: nothing of a file is compared or hashed, which for nested tuples can take forever.
@dataclasses.dataclass(eq=False)
class _Call:
    """A call that a file requests and that is never made.

    Attributes:
      name: what is to be called.
      arguments: with what.
      state: what the result is to be given afterwards; for a tensor, its array.
    """

    name: str
    arguments: Any = ()
    state: Any = None


def read_module_pickle(data: bytes) -> dict[str, np.ndarray]:
    """Reads {dotted name: array} from a pickled module, or from the modules in a pickled dict.

    For {"ema": module, ...} the names start with "ema."; objects that are not modules are ignored.

    Raises:
      ValueError: the pickle is damaged or too long, or holds no modules.
    """
    top = _follow_all(data)
    # A module may contain another many times, or itself, so the number of visits is limited.
    waiting = list(top.items()) if type(top) is dict else [("", top)]
    arrays, count = {}, 0
    while waiting:
        prefix, module = waiting.pop()
        state, count = _state(module), count + 1
        if count > MAX_MODULES or len(prefix) > MAX_NAME:
            raise ValueError("its modules are too many, or nested too deeply")
        if state is None:
            continue
        join = lambda name, prefix=prefix: f"{prefix}.{name}" if prefix else name
        for kind in ("_parameters", "_buffers"):
            for name, value in _dict(state.get(kind)).items():
                if type(value) is _Call and value.name == REBUILD_TENSOR and len(name) <= MAX_NAME:
                    arrays[join(name)] = value.state
        waiting += [(join(name), child) for name, child in _dict(state.get("_modules")).items()]
    if not arrays:
        raise ValueError("it is a pickle, but not of PyTorch modules with tensors")
    return arrays


def _state(module: Any) -> dict[str, Any] | None:
    """Returns the attributes of a module, or None if it is not a module."""
    if type(module) is not _Call:
        return None
    match module.arguments:
        # NVIDIA's persistent classes are called with everything.
        case ({"state": dict(state)},) if module.name == _PERSISTENT:
            return state
    return module.state if type(module.state) is dict else None


def _dict(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


_PERSISTENT = "torch_utils.persistence _reconstruct_persistent_obj"
_PARAMETER = "torch._utils _rebuild_parameter"
_STORAGE = "torch.storage _load_from_bytes"


def _follow_all(data: bytes) -> Any:
    """Returns the value of a program: dicts, lists, tuples, `_Call` and plain values."""
    stack, marks, memo = [], [], {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in a damaged string
            instructions = pickletools.genops(io.BytesIO(data))
            for count, (opcode, argument, _) in enumerate(instructions):
                if count > MAX_INSTRUCTIONS:
                    raise ValueError("its pickle is too long for modules of tensors")
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
        case "PROTO" | "FRAME" | "STOP":
            pass
        case "MARK":
            marks.append(len(stack))
        case "POP":
            stack.pop()
        case "POP_MARK":
            pop_from(stack, marks.pop())
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append(_CONSTANTS[opcode])
        case _ if opcode in _VALUES:
            stack.append(argument)
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append(tuple(pop_from(stack, len(stack) - int(opcode[-1]))))
        case "TUPLE":
            stack.append(tuple(pop_from(stack, marks.pop())))
        case "EMPTY_LIST" | "EMPTY_SET":  # the elements of sets do not matter
            stack.append([])
        case "FROZENSET":
            stack.append(pop_from(stack, marks.pop()))
        case "APPEND" | "APPENDS" | "ADDITEMS":
            items = pop_from(stack, len(stack) - 1 if opcode == "APPEND" else marks.pop())
            if type(stack[-1]) is list:
                stack[-1].extend(items)
        case "EMPTY_DICT":
            stack.append({})
        case "SETITEM" | "SETITEMS":
            items = pop_from(stack, marks.pop() if opcode == "SETITEMS" else len(stack) - 2)
            # Keys that are not names do not matter, nor do the items of subclasses.
            if type(stack[-1]) is dict:
                pairs = zip(items[::2], items[1::2], strict=True)
                stack[-1].update((key, value) for key, value in pairs if type(key) is str)
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(Name(argument))
        case "STACK_GLOBAL":
            module, name = pop_from(stack, len(stack) - 2)
            stack.append(Name(f"{_text(module)} {_text(name)}"))
        case "REDUCE" | "NEWOBJ":
            arguments, called = stack.pop(), stack.pop()
            if type(called) is not Name:
                raise ValueError("its pickle calls something that has no name")
            stack.append(_result_of(called.text, arguments))
        case "BUILD":
            state = stack.pop()
            if type(stack[-1]) is _Call and stack[-1].name != REBUILD_TENSOR:
                stack[-1].state = state
        case _:
            raise ValueError(f"its pickle has the instruction {opcode}, which no weights need")


def _result_of(name: str, arguments: Any) -> Any:
    """Returns what stands for the result of a call: its value if it is needed, else a `_Call`."""
    match name, arguments:
        case str(), () if name == ORDERED_DICT:
            return {}
        case str(), (bytes() | bytearray() as saved,) if name == _STORAGE:
            return read_torch_storage(saved)
        case str(), ((Storage() as storage, buffer), offset, shape, strides, *_) if (
            name == REBUILD_TENSOR
        ):
            tensor = tensor_of(storage, offset, shape, strides)
            return _Call(REBUILD_TENSOR, (), tensor.array(buffer))
        case str(), (_Call(name=inner) as tensor, *_) if (
            name == _PARAMETER and inner == REBUILD_TENSOR
        ):
            return tensor
    # A call under a tensor's name that is not one loses the name, so as not to pass for one.
    return _Call("" if name == REBUILD_TENSOR else name, arguments)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("its pickle is damaged")
    return value
