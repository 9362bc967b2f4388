"""What a config builds, in words, and values to try its fields with."""

import dataclasses
import functools
import hashlib
import types

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from genjax.runner.fields import Choice, Field
from tests.conftest import ROOT


@dataclasses.dataclass(frozen=True)
class Held:
    """A test elsewhere that holds a field: "tests/file.py::test_name"."""

    test: str


@dataclasses.dataclass(frozen=True)
class Case:
    """How a field is tried.

    Attributes:
      value: what it is set to; by default one is derived from the field.
      on: other fields with which it has an effect.
      also: other fields that have to change with it.
      off: other fields with which it has none, where that is not so by default.
    """

    value: object = None
    on: dict = dataclasses.field(default_factory=dict)
    also: dict = dataclasses.field(default_factory=dict)
    off: dict = dataclasses.field(default_factory=dict)


# ---- What is built, in words ----

IGNORED = {"parent", "metadata", "provenance", "config"}  # those that quote the whole config


def described(x, seen=()):
    """Describes an object by its values: fields, closures, arrays; without names of addresses."""
    if id(x) in seen or isinstance(x, ConfigDict):
        return "..."
    inner = lambda y: described(y, (*seen, id(x)))
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        names = [f.name for f in dataclasses.fields(x) if f.name not in IGNORED]
        if isinstance(x, nn.Module):
            names = [name for name in names if name != "name"]
        return type(x).__name__, [(name, inner(getattr(x, name))) for name in names]
    if isinstance(x, functools.partial):
        return inner(x.func), inner(x.args), inner(x.keywords)
    if isinstance(x, dict):
        return [(key, inner(value)) for key, value in x.items() if key not in IGNORED]
    if isinstance(x, tuple | list):
        return [inner(y) for y in x]
    if isinstance(x, np.ndarray | jax.Array):
        return x.shape, hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    if isinstance(x, types.MethodType):
        return x.__func__.__qualname__, inner(x.__self__)
    if isinstance(x, types.FunctionType):
        cells = x.__closure__ or ()
        return x.__qualname__, [inner(cell.cell_contents) for cell in cells]
    if isinstance(x, str | int | float | bool | type(None)):
        return x
    return getattr(x, "__qualname__", type(x).__qualname__)


def another(field):
    """Returns a value that a field may have besides its default."""
    old = field.default
    if field.one_of:
        name = next(name for name in field.one_of if name != old)
        return (*old, name) if isinstance(old, tuple) else name
    if isinstance(old, bool):
        return not old
    if isinstance(old, tuple):
        return tuple(2 * x for x in old)
    if isinstance(old, float):
        return old / 2 if old else 0.25
    assert isinstance(old, int), f"a case is needed for a field of default {old!r}"
    return 2 * old or 1


def leaves(fields, prefix=""):
    """Yields ({key of a Choice: its name}, dotted key, field)."""
    for key, value in fields.items():
        name = f"{prefix}{key}"
        if isinstance(value, Field):
            yield {}, name, value
        elif isinstance(value, Choice):
            for group, members in value.groups.items():
                for inner in leaves(members, f"{name}."):
                    yield {name: group, **inner[0]}, *inner[1:]
        else:
            yield from leaves(value, f"{name}.")


def label(groups, key):
    for choice, name in groups.items():
        key = key.replace(f"{choice}.", f"{choice}[{name}].", 1)
    return key


def held(test):
    """Returns whether there is a test, "tests/file.py::test_name"."""
    file, name = test.split("::")
    return f"def {name}(" in (ROOT / file).read_text()
