"""What stands behind the colon of --config=configs/NAME.py:ARG: variants of a config.

smoke      seconds on two cores, offline, on the embedded data, at the run's own image shape
seeds=5    so many runs, with seeds seed, seed + 1, ...; the report has mean and deviation
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from genjax.errors import UserError
from genjax.runner.config import apply_smoke
from genjax.runner.family import find_family
from genjax.runner.fields import require
from genjax.runner.groups import pick_groups

# Each argument and its default, whose type is that of the argument; "smoke" alone is "smoke=True".
ARGUMENTS = {"smoke": False, "seeds": 1}


def variants(get_config: Callable[[], ConfigDict]) -> Callable[..., ConfigDict]:
    """Turns a function without arguments into the `get_config(arg)` that launch.py calls."""

    @functools.wraps(get_config)
    def with_argument(arg: str | None = "") -> ConfigDict:
        options = parse_argument(arg or "", ARGUMENTS)
        config = get_config()
        config.num_seeds = options["seeds"]
        if options["smoke"]:
            family = find_family(config.experiment)
            apply_smoke(config, family.smoke(config), family.FIELDS)
        return config

    return with_argument


def with_overrides(config: ConfigDict, arg: str, overrides: Mapping[str, str]) -> None:
    """Prepares a config for the flags of a command line, which are read after it.

    Groups get the fields of the names that the flags pick; a tiny run stays tiny.

    Args:
      config: of a file, changed in place.
      arg: what stood behind the colon.
      overrides: {dotted key: text} of the flags.

    Raises:
      UserError: one line about a flag that does not go with the file.
    """
    experiment = overrides.get("experiment", config.experiment)
    what = f"{config.experiment!r}, the family of the file: another family has files of its own"
    require(experiment == config.experiment, "experiment", experiment, what)
    family = find_family(config.experiment)
    changed = pick_groups(config, family.FIELDS, overrides)
    if changed and "smoke" in arg.split(","):
        apply_smoke(config, family.smoke(config), family.FIELDS)


def parse_argument(arg: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Parses "name=value,flag" into typed values.

    Args:
      arg: parts joined by commas.
      defaults: {name: default}, bool, int, float or str.

    Raises:
      UserError: an unknown name, or a value of another type.
    """
    options = dict(defaults)
    known = ", ".join(k if v is False else f"{k}=<{type(v).__name__}>" for k, v in defaults.items())
    for part in filter(None, arg.split(",")):
        name, given, text = part.partition("=")
        kind = type(defaults.get(name))
        try:
            if name not in defaults or (kind is not bool and not given):
                raise ValueError
            boolean = {"": True, "true": True, "false": False}
            value = boolean[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise UserError(f"config argument '{part}' is not one; known: {known}") from None
        if name == "seeds" and value < 1:
            raise UserError(f"config argument '{part}': there must be at least 1")
        options[name] = value
    return options
