"""Writes modules as `pickle` and PyTorch do, by hand, so that no test needs PyTorch.

Modules that are named in the file are there while it is written, and not when it is read.
"""

import pickle
import struct
import sys
import types
from collections import OrderedDict
from unittest import mock

from tests import torch_files as tf

SOURCE = "raise RuntimeError('the source code in the file was run')\n"


def function(module, name):
    """A function that a pickle refers to by name."""

    def forbidden(*args):
        raise RuntimeError(f"{module}.{name} was called")

    forbidden.__module__, forbidden.__qualname__, forbidden.__name__ = module, name, name
    return forbidden


PERSISTENT = function("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = function("torch._utils", "_rebuild_tensor_v2")
PARAMETER = function("torch._utils", "_rebuild_parameter")
STORAGE = function("torch.storage", "_load_from_bytes")
FUNCTIONS = (PERSISTENT, TENSOR, PARAMETER, STORAGE)


class ModuleDict:
    """A module that keeps no source code."""

    __module__ = "torch.nn.modules.container"


class Call:
    """Pickles into a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def storage(array):
    """Bytes of `torch.save` of one storage, in the format before 1.6."""
    identity = tf.text("storage") + b"ctorch\nFloatStorage\n" + tf.text("7") + tf.text("cpu")
    program = b"\x80\x02(" + identity + tf.number(array.size) + b"NtQ."
    keys = b"\x80\x02](" + tf.text("7") + b"e."
    return tf.LEGACY_HEAD + program + keys + struct.pack("<q", array.size) + array.tobytes()


def tensor(array):
    strides = tuple(n // array.itemsize for n in array.strides)
    looks = 0, array.shape, strides, False, OrderedDict()
    return Call(TENSOR, Call(STORAGE, storage(array)), *looks)


def parameter(array):
    return Call(PARAMETER, tensor(array), False, OrderedDict())


def state(parameters=(), buffers=(), modules=(), **more):
    own = {name: parameter(array) for name, array in dict(parameters).items()}
    own["missing"] = None  # as a bias that a layer does without
    return {
        "training": False,
        "_parameters": OrderedDict(own),
        "_buffers": OrderedDict({name: tensor(array) for name, array in dict(buffers).items()}),
        "_non_persistent_buffers_set": set(),
        "_modules": OrderedDict(modules),
        "skip_scale": 0.5**0.5,
        **more,
    }


def persistent(name, **parts):
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": name}
    return Call(PERSISTENT, {**meta, "state": state(**parts)})


def module_dict(modules):
    made = ModuleDict()
    made.__dict__.update(state(modules=modules))
    return made


def dumped(value, protocol=4):
    """The pickle of a value."""
    modules = {"torch.nn.modules.container": types.ModuleType("torch.nn.modules.container")}
    modules["torch.nn.modules.container"].ModuleDict = ModuleDict
    for one in FUNCTIONS:
        module = modules.setdefault(one.__module__, types.ModuleType(one.__module__))
        setattr(module, one.__name__, one)
    for name in list(modules):
        for i, letter in enumerate(name):
            if letter == ".":
                modules.setdefault(name[:i], types.ModuleType(name[:i]))
    with mock.patch.dict(sys.modules, modules):
        return pickle.dumps(value, protocol)


def tree(arrays):
    """A persistent module of {dotted name: array}; "enc" and "dec" are dicts of modules."""
    own, children = {}, {}
    for name, array in arrays.items():
        first, dot, rest = name.partition(".")
        if dot:
            children.setdefault(first, {})[rest] = array
        else:
            own[name] = array
    modules = {name: tree(child) for name, child in children.items()}
    if not own and set(children) and all("x" in name for name in children):
        return module_dict(modules)
    buffers = {name: own.pop(name) for name in list(own) if name == "resample_filter"}
    return persistent("Anything", parameters=own, buffers=buffers, modules=modules)
