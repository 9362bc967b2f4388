"""Groups of fields that a name picks: another name brings its own fields, as a flag too."""

import functools
import importlib
import sys

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import FAMILIES
from genjax.errors import UserError
from genjax.runner.command import GroupParser
from genjax.runner.family import completed, find_family
from genjax.runner.fields import Choice, Field, check_fields, field
from genjax.runner.groups import complete_groups, pick_groups
from tests.conftest import ROOT

FIELDS = {
    "part": {
        "net": Choice(
            {
                "a": {"width": field(4), "size": field(1), "deep": field(2)},
                "b": {"width": field(8), "size": field(1), "rate": field(0.5)},
                "c": {"inner": Choice({"x": {"p": field(1)}, "y": {"q": field(2)}})},
            }
        )
    }
}


def config_of(**values):
    return ConfigDict({"part": {"net": {"name": "a", "width": 4, "size": 1, "deep": 2} | values}})


def test_a_field_of_both_names_keeps_what_was_set_and_not_a_default():
    expected = {"name": "b", "width": 8, "size": 3, "rate": 0.5}
    config = config_of(size=3, deep=7)
    pick_groups(config, FIELDS, {"part.net.name": "b", "part.net.rate": "0.1"})
    assert config.part.net.to_dict() == expected
    assert complete_groups(config_of(name="b", size=3), FIELDS).part.net.to_dict() == expected
    assert complete_groups(config, FIELDS) == config
    # In Python it is not known who set the field of the old name: it is refused, not forgotten.
    full = complete_groups(config_of(name="b", deep=7), FIELDS)
    with pytest.raises(UserError, match="part.net.deep is not a field of .*=b, but of a"):
        check_fields(full, FIELDS)


def test_a_group_within_a_group_is_picked_too():
    config = config_of()
    names = {"part.net.name": "c", "part.net.inner.name": "y", "part.net.inner.q": "3"}
    pick_groups(config, FIELDS, names)
    assert config.part.net.to_dict() == {"name": "c", "inner": {"name": "y", "q": 2}}
    with pytest.raises(UserError, match="net.inner.p is not a field of .*inner.name=y, but of x"):
        pick_groups(config, FIELDS, {"part.net.inner.p": "3"})


GROUPS = [
    (family, key, name)
    for family in FAMILIES
    for key, choice in find_family(family).FIELDS.items()
    if isinstance(choice, Choice)
    for name in choice.groups
]
CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))


@functools.cache
def file_of(family):
    """The first config file of a family."""
    of = lambda name: importlib.import_module(f"configs.{name}").get_config().experiment
    return next(name for name in CONFIGS if of(name) == family)


def parsed(monkeypatch, *args):
    """Returns what launch.py would parse."""
    argv = ["launch.py", *args]
    monkeypatch.setattr(sys, "argv", argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values["config"].parser = GroupParser(values["config"].parser)
    values(argv)
    return values.config


@pytest.mark.parametrize("family, key, name", GROUPS)
@pytest.mark.parametrize("smoke", ["", ":smoke"])
def test_a_name_and_its_fields_in_one_command(monkeypatch, family, key, name, smoke):
    choice, file = find_family(family).FIELDS[key], file_of(family)
    values = {k: v.default for k, v in choice.groups[name].items() if isinstance(v, Field)}
    args = [f"--config.{key}.{k}={v}" for k, v in values.items()]
    path = f"--config=configs/{file}.py{smoke}"
    config = parsed(monkeypatch, path, *args, f"--config.{key}.name={name}")
    assert config[key].to_dict() == choice.select(name)
    check_fields(config, find_family(family).FIELDS)
    with pytest.raises(AttributeError):
        config[key].no_such_field = 1  # still locked
    # The name alone, in two arguments: every field is there, none of another name.
    config = parsed(monkeypatch, path, f"--config.{key}.name", name)
    assert set(config[key]) == choice.select(name).keys()
    assert completed(config) == config
    # What the file sets for both names stays; a tiny run stays tiny.
    in_file = importlib.import_module(f"configs.{file}").get_config()[key]
    old = choice.select(in_file.name)
    for k in set(in_file) & choice.select(name).keys() - {"name"}:
        if in_file[k] != old[k] and not smoke:
            assert config[key][k] == in_file[k]
    if smoke:
        tiny = config.copy_and_resolve_references()
        tiny.update_from_flattened_dict(find_family(family).smoke(config))
        assert tiny[key] == config[key]
