"""Config fields: a default, what it means, and which values are allowed, in one place.

A family declares its fields as nested dictionaries,

  FIELDS = {
      "optim": {"lr": field(1e-3, "peak learning rate", at_least=0)},
      "model": {"features": field((32, 64), "channels of each stage", at_least=1)},
  }

`defaults` turns them into the plain values of an ml_collections ConfigDict, which a config file and
the command line override as usual; `check_fields` compares a finished config with the rules.

A field that only some values of other fields give an effect says so next to its default,

  "eta": field(0.0, "noise of ddim", only_with=one_of("sample.sampler", "ddim")),

and `check_idle` refuses every other value of it where it has none.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from genjax.errors import UserError

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class When:
    """A condition on other fields: one of its tests holds. `|` joins two conditions.

    Attributes:
      tests: (dotted key of a field, value -> whether the test holds, the values in words). A field
        that has no effect itself, or that the config does not have, fails its test.
    """

    tests: tuple[tuple[str, Callable[[Any], bool], str], ...]

    def __or__(self, other: "When") -> "When":
        return When(self.tests + other.tests)


def one_of(key: str, *values: Any) -> When:
    """Returns the condition that a field has one of some values."""
    words = " or ".join(filter(None, [", ".join(map(str, values[:-1])), str(values[-1])]))
    return When(((key, lambda value: value in values, f"={words}"),))


def other_than(key: str, *values: Any) -> When:
    """Returns the condition that a field has none of some values."""
    words = f" other than {' or '.join(map(repr, values))}"
    return When(((key, lambda value: value not in values, words),))


def is_set(*keys: str) -> When:
    """Returns the condition that one of some fields is not 0, False or empty."""
    return When(tuple((key, bool, " set") for key in keys))


def starts_with(key: str, *prefixes: str) -> When:
    """Returns the condition that a text starts with one of some prefixes."""
    return When(((key, lambda value: str(value).startswith(prefixes), f"={prefixes[0]}..."),))


NEVER = When(())


@dataclasses.dataclass(frozen=True)
class Field:
    """A config field; `field` makes one.

    Attributes:
      default: the value; its type is the field's type. Tuples, never lists: flags cannot override
        lists.
      doc: what it means, for people.
      at_least, above, at_most, below: bounds of a number, or of each number of a tuple.
      one_of: the allowed names, for a string or each string of a tuple.
      items: the type of a tuple's elements, by default that of the default's first one.
      nonempty: whether a tuple must have an element.
      finite: whether a float must be finite, in float32 as well, which networks compute in. NaN is
        never allowed.
      only_with: conditions that must all hold for the field to have an effect.
      names: what a path in it names: "dataset", "picture", or "frozen" for a file whose checksum
        `Family.frozen` holds. A run may continue with another path to what has the same checksum.
    """

    default: Any
    doc: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] | None = None
    items: type | None = None
    nonempty: bool = False
    finite: bool = True
    only_with: tuple[When, ...] = ()
    names: str = ""

    def check(self, key: str, value: Any) -> None:
        """Raises a UserError that names `config.<key>` where `value` is not allowed."""
        if not isinstance(self.default, tuple):
            return self._check_one(key, value, value)
        require(isinstance(value, tuple), key, value, "a tuple, such as (1, 2)")
        require(value or not self.nonempty, key, value, "a tuple of at least one element")
        kind = self.items or (type(self.default[0]) if self.default else None)
        for element in value:
            if kind is int:
                require(type(element) is int, key, value, "whole numbers")
            if kind is float:
                require(_is_number(element), key, value, "numbers")
            self._check_one(key, value, element)

    def _check_one(self, key: str, value: Any, element: Any) -> None:
        if self.one_of is not None:
            choose(self.one_of, element, key)
        is_float = isinstance(self.default, float) or isinstance(element, float)
        if is_float or self._bounded:
            number = _is_number(element)
            within = number and not math.isnan(element) and self._within(element)
            finite = number and (not self.finite or abs(element) <= FLOAT32_MAX)
            require(within and finite, key, value, self._allowed(is_float))

    @property
    def _bounded(self) -> bool:
        bounds = (self.at_least, self.above, self.at_most, self.below)
        return any(bound is not None for bound in bounds)

    def _within(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above and _in_float32(number) > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def _allowed(self, is_float: bool) -> str:
        """Says which numbers are allowed: "at least 1", "in [0, 1)", "above 0 and finite"."""
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if low is not None and high is not None:
            opens, closes = "[" if self.above is None else "(", "]" if self.below is None else ")"
            return f"in {opens}{low}, {_short(high)}{closes}"
        if low is None and high is None and not self.finite:
            return "a number"
        parts = []
        if low is not None:
            parts.append(f"{'at least' if self.above is None else 'above'} {low}")
        if high is not None:
            parts.append(f"{'at most' if self.below is None else 'less than'} {_short(high)}")
        if is_float and self.finite:
            parts.append("finite in float32")
        return " and ".join(parts) or "a number"


def field(default: Any, doc: str = "", **rules: Any) -> Field:
    """Declares a config field; `rules` are those of `Field`.

    `one_of` takes any iterable of names, such as the dictionary whose entries they pick;
    `only_with` one condition or a tuple of them.
    """
    if "one_of" in rules:
        rules["one_of"] = tuple(rules["one_of"])
    if isinstance(rules.get("only_with"), When):
        rules["only_with"] = (rules["only_with"],)
    return Field(default, doc, **rules)


def unused(fields: "Fields", *keys: str) -> dict[str, Any]:
    """Returns declared fields (those of some names only) as a family declares what it ignores.

    Any value but the default is then refused.
    """
    return {
        key: dataclasses.replace(value, only_with=(NEVER,))
        if isinstance(value, Field)
        else unused(value)
        for key, value in fields.items()
        if not keys or key in keys
    }


@dataclasses.dataclass(frozen=True)
class Choice:
    """A group of fields that depends on a name in it: `config.model.name` picks `groups[name]`.

    Attributes:
      groups: {name: fields}; the first one is the default.
    """

    groups: Mapping[str, Mapping[str, Any]]

    def select(self, name: str, **values: Any) -> dict[str, Any]:
        """Returns the values of a group for a config: its defaults, some of them replaced.

        Raises:
          KeyError: there is no such group, or it has no such field.
        """
        found = defaults(self.groups[name])
        unknown = values.keys() - found.keys()
        if unknown:
            raise KeyError(f"'{name}' has no field {', '.join(sorted(unknown))}")
        return {"name": name, **found, **values}

    def refuse_others(self, keys: Iterable[str], name: str, prefix: str) -> None:
        """Raises a UserError for the first key in `config.<prefix>` that is not of its name."""
        group = self.groups[name]
        for key in keys:
            if key not in group and key != "name":
                owners = [other for other, fields in self.groups.items() if key in fields]
                close = difflib.get_close_matches(key, group, n=1)
                hint = f"; the nearest is {prefix}.{close[0]}" if close else ""
                hint = f", but of {' and '.join(owners)}" if owners else hint
                raise UserError(
                    f"config.{prefix}.{key} is not a field of config.{prefix}.name={name}{hint}"
                )


Fields = Mapping[str, "Field | Choice | Fields"]


def defaults(fields: Fields, like: ConfigDict | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the nested default values of declared fields.

    Args:
      fields: as a family declares them.
      like: a config whose names pick the groups of every `Choice`; by default the first ones.
    """
    values = {}
    for key, value in fields.items():
        inner = (like or {}).get(key, None)
        if isinstance(value, Field):
            values[key] = value.default
        elif isinstance(value, Choice):
            name = (inner or {}).get("name")
            values[key] = value.select(name if name in value.groups else next(iter(value.groups)))
        else:
            values[key] = defaults(value, inner)
    return values


def merged(*trees: Fields) -> dict[str, Any]:
    """Joins declared fields; groups of the same name are joined, later fields replace earlier."""
    out: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
            out[key] = merged(out[key], value) if both else value
    return out


def check_fields(config: ConfigDict, fields: Fields, prefix: str = "") -> None:
    """Compares every field of a config with its rule.

    Raises:
      UserError: one line about the first value that is not allowed, or the first field that is
        missing or that the chosen group does not have.
    """
    for key, value in fields.items():
        name = f"{prefix}{key}"
        if key not in config:
            raise UserError(f"config.{name} is missing")
        if isinstance(value, Field):
            value.check(name, config[key])
        elif isinstance(value, Choice):
            _check_choice(config[key], value, name)
        else:
            check_fields(config[key], value, f"{name}.")


def named_files(config: ConfigDict, fields: Fields) -> dict[str, str]:
    """Returns {dotted key: `Field.names`} of the fields of a config whose values are paths."""
    declared = _Effects(config, fields).fields
    return {key: value.names for key, value in declared.items() if value.names}


# ---- Fields without an effect ----


class _Effects:
    """Which fields of a config have an effect.

    Attributes:
      fields: {dotted key: declared field} of those that the config has.
      values: {dotted key: value} of the same, and of the names that pick groups.
    """

    def __init__(self, config: ConfigDict, fields: Fields):
        self.fields: dict[str, Field] = {}
        self.values: dict[str, Any] = {}
        self._add(config, fields, "")

    def _add(self, config, fields, prefix):
        for key, value in fields.items():
            name = f"{prefix}{key}"
            if key not in config:
                continue
            if isinstance(value, Field):
                self.fields[name], self.values[name] = value, config[key]
            elif isinstance(value, Choice):
                self.values[f"{name}.name"] = picked = config[key].get("name")
                self._add(config[key], value.groups.get(picked, {}), f"{name}.")
            else:
                self._add(config[key], value, f"{name}.")

    def failing(self, key: str) -> When | None:
        """Returns the condition, of a field or of one that it depends on, that takes its effect.

        None for a field with an effect.
        """
        for when in self.fields[key].only_with if key in self.fields else ():
            able = [k for k, holds, _ in when.tests if k in self.values and holds(self.values[k])]
            if not able:
                return when
            causes = [self.failing(k) if k != key else None for k in able]
            if None not in causes:
                return causes[0]
        return None

    def idle(self) -> list[str]:
        """Lists the fields without an effect."""
        return [key for key in self.fields if self.failing(key)]

    def depends_on(self, key: str, others: Collection[str]) -> bool:
        """Returns whether some of `others` decide about the effect of a field."""
        rules = self.fields[key].only_with if key in self.fields else ()
        tested = [k for when in rules for k, _, _ in when.tests if k != key]
        return any(k in others or self.depends_on(k, others) for k in tested)


def idle_defaults(config: ConfigDict, fields: Fields) -> list[str]:
    """Lists the dotted keys of fields that have no effect and are at their defaults."""
    effects = _Effects(config, fields)
    return [key for key in effects.idle() if effects.values[key] == effects.fields[key].default]


def check_idle(config: ConfigDict, fields: Fields, used: tuple[str, ...] = ()) -> None:
    """Refuses values of fields that have no effect; a default is always allowed.

    Args:
      config: with all of `fields`.
      fields: as declared.
      used: beginnings of keys that have an effect all the same.

    Raises:
      UserError: one line about the first such field, which names the others.
    """
    effects = _Effects(config, fields)
    wrong = [
        key
        for key in effects.idle()
        if effects.values[key] != effects.fields[key].default and not key.startswith(used)
    ]
    if not wrong:
        return
    key, when = wrong[0], effects.failing(wrong[0])
    default = effects.fields[key].default
    there = [k for k, *_ in when.tests if k in effects.values and k != key] or ["experiment"]
    with_what = " and ".join(f"config.{k}={effects.values.get(k)}" for k in there)
    what = f"{default:g}" if isinstance(default, float) else repr(default)
    what += f" with {with_what}: it has no effect there"
    if when.tests:
        needed = " or ".join(f"config.{k}{words}" for k, _, words in when.tests)
        what += f", only with {needed}"
    if len(wrong) > 1:
        what += f" (the same holds for {', '.join(f'config.{k}' for k in wrong[1:])})"
    require(False, key, effects.values[key], what)


def forget_idle(
    config: ConfigDict, fields: Fields, changed: Collection[str], keep: Collection[str] = ()
) -> ConfigDict:
    """Resets fields to their defaults that lost their effect by a change of other fields.

    Args:
      config: changed in place and returned.
      fields: as declared.
      changed: dotted keys of the fields that were changed; idle ones among them are reset, too.
      keep: keys that are left alone.
    """
    effects = _Effects(config, fields)
    for key in effects.idle():
        if key not in keep and (key in changed or effects.depends_on(key, changed)):
            config.update_from_flattened_dict({key: effects.fields[key].default})
    return config


def _check_choice(config: ConfigDict, choice: Choice, prefix: str) -> None:
    group = choose(choice.groups, config.get("name"), f"{prefix}.name")
    choice.refuse_others(config, config.name, prefix)
    check_fields(config, group, f"{prefix}.")


def choose(options: Iterable[str], name: Any, key: str) -> Any:
    """Returns `options[name]` of a dictionary, or `name` itself of other options.

    Raises:
      UserError: `config.<key>=<name>` is not one of them; the message has the nearest name.
    """
    if name not in options:
        known = list(map(str, options))
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        raise UserError(f"config.{key}='{name}' is not known; {hint}")
    return options[name] if isinstance(options, Mapping) else name


def require(condition: Any, key: str, value: Any, what: str) -> None:
    """Raises the UserError "config.<key>=<value> must be <what>" unless the condition holds."""
    if not condition:
        raise UserError(f"config.{key}={value!r} must be {what}")


def flatten(config: Any) -> dict[str, Any]:
    """Returns {dotted key: value} of a ConfigDict or nested dictionaries; tuples become lists."""
    nested = json.loads(config.to_json() if hasattr(config, "to_json") else json.dumps(config))
    flat = {}

    def walk(prefix: str, value: dict) -> None:
        for key, child in value.items():
            if isinstance(child, dict):
                walk(f"{prefix}{key}.", child)
            else:
                flat[f"{prefix}{key}"] = child

    walk("", nested)
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_float32(number: float | int) -> float:
    """Rounds a number as computations do: what is very small becomes 0."""
    return float(np.float32(max(-FLOAT32_MAX, min(number, FLOAT32_MAX))))


def _short(number: float) -> str:
    return "2^32" if number == 2**32 else str(number)
