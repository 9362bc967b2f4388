"""Groups of fields that a name picks (`Choice`): another name brings its own fields.

`--config.process.name=vp --config.process.beta_max=10.0` is one command: `pick_groups` gives
config.process the fields of "vp" before the other flags are read. `complete_groups` does the same
for a config whose names were changed in Python. In both, a field that both names have keeps its
value, unless that is the default of the old name.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from genjax.runner.fields import Choice, Field, Fields, choose


def complete_groups(config: ConfigDict, fields: Fields) -> ConfigDict:
    """Returns a copy of a config in which every group has the fields of its name.

    Missing ones get their defaults. Fields of another name are dropped where they are at their
    default; any others stay, and `check_fields` refuses them.
    """
    config = config.copy_and_resolve_references()
    _change_groups(config, fields, {}, "")
    return config


def pick_groups(config: ConfigDict, fields: Fields, overrides: Mapping[str, str]) -> bool:
    """Changes the names of a config's groups, and the fields of each with its name.

    What the config sets for another name is forgotten.

    Args:
      config: changed in place; every group has the fields of its name.
      fields: as declared.
      overrides: {dotted key: text} of the command line.

    Returns:
      Whether a name was changed.

    Raises:
      UserError: there is no such name, or one of the keys is not a field of its group.
    """
    before = config.copy_and_resolve_references()
    with config.unlocked():
        _change_groups(config, fields, overrides, "")
    _check_keys(config, fields, overrides, "")
    return config != before


def _change_groups(config: ConfigDict, fields: Fields, names: Mapping[str, str], prefix: str):
    for key, value in fields.items():
        if isinstance(value, Field) or key not in config:
            continue
        if not isinstance(value, Choice):
            _change_groups(config[key], value, names, f"{prefix}{key}.")
            continue
        before, name = config[key].to_dict(), config[key].get("name")
        picked = names.get(f"{prefix}{key}.name", name)
        if picked != name:
            choose(value.groups, picked, f"{prefix}{key}.name")
            config[key] = _changed(before, value, picked, [name], forget=True)
        elif name in value.groups:
            fits = [n for n, own in value.groups.items() if own.keys() | {"name"} == before.keys()]
            if name not in fits:
                config[key] = _changed(before, value, name, fits)
        group = value.groups.get(config[key].get("name"), {})
        _change_groups(config[key], group, names, f"{prefix}{key}.")


def _changed(
    values: Mapping[str, Any],
    choice: Choice,
    name: str,
    before: Collection[str],
    forget: bool = False,
) -> dict[str, Any]:
    """Returns the values of a group after a change of its name.

    Args:
      values: of the group.
      choice: as declared.
      name: the new one.
      before: the names that it may have had.
      forget: whether to drop all fields of other names.
    """
    defaults = {n: choice.select(n) for n in choice.groups}
    at_default = lambda key, names: any(
        key in defaults[n] and values[key] == defaults[n][key] for n in names if n in defaults
    )
    kept = {}
    for key in values.keys() - {"name"}:
        if key in defaults[name]:
            keeps = not at_default(key, before)
        else:
            keeps = not forget and not at_default(key, defaults)
        if keeps:
            kept[key] = values[key]
    return {**defaults[name], **kept}


def _check_keys(config: ConfigDict, fields: Fields, keys: Collection[str], prefix: str) -> None:
    for key, value in fields.items():
        if isinstance(value, Field) or key not in config:
            continue
        start = f"{prefix}{key}."
        if isinstance(value, Choice):
            inner = (k.removeprefix(start).partition(".")[0] for k in keys if k.startswith(start))
            value.refuse_others(inner, config[key].name, f"{prefix}{key}")
            value = value.groups[config[key].name]
        _check_keys(config[key], value, keys, start)
