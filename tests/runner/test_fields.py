"""Config fields: the rule beside the default, and what is said where it is broken."""

import json
import math

import pytest
from ml_collections import ConfigDict

from configs import vae_digits
from experiments import FAMILIES
from genjax.errors import UserError
from genjax.runner.config import check_config
from genjax.runner.family import find_family
from genjax.runner.fields import (
    Choice,
    check_fields,
    check_idle,
    defaults,
    field,
    flatten,
    forget_idle,
    idle_defaults,
    is_set,
    merged,
    one_of,
    other_than,
    starts_with,
    unused,
)
from genjax.runner.variants import parse_argument
from genjax.runner.workdir import check_workdir

NETWORKS = Choice({"a": {"width": field(4, at_least=1)}, "b": {"depth": field(2), "p": field(0.5)}})
FIELDS = {
    "count": field(1, at_least=1),
    "share": field(0.5, at_least=0, below=1),
    "rate": field(1.0, above=0),
    "far": field(math.inf, at_least=0, finite=False),
    "scale": field(1.0),
    "interval": field((0.0, math.inf), finite=False),
    "weights": field((), items=float),
    "ends": field((0.0, math.inf), finite=False),
    "sizes": field((8, 4), at_least=1, nonempty=True),
    "names": field((), one_of=("x", "y"), items=str),
    "kind": field("plain", one_of={"plain": 1, "fancy": 2}),
    "model": NETWORKS,
}


def config(**changes):
    return ConfigDict({**defaults(FIELDS), **changes})


def test_the_defaults_are_plain_values_and_keep_their_own_rules():
    assert defaults(FIELDS)["model"] == {"name": "a", "width": 4}
    check_fields(config(), FIELDS)
    check_fields(config(model=NETWORKS.select("b", depth=3)), FIELDS)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"count": 0}, "config.count=0 must be at least 1"),
        ({"share": 1.0}, r"config.share=1.0 must be in \[0, 1\)"),
        ({"rate": 0.0}, "config.rate=0.0 must be above 0 and finite"),
        ({"rate": math.inf}, "config.rate=inf must be above 0 and finite"),
        ({"far": math.nan}, "config.far=nan must be at least 0"),
        ({"rate": 1e-50}, "config.rate=1e-50 must be above 0 and finite"),  # 0 in float32
        ({"scale": math.nan}, "config.scale=nan must be finite"),
        ({"scale": -math.inf}, "config.scale=-inf must be finite"),
        ({"scale": 1e39}, "config.scale=.* must be finite in float32"),
        ({"interval": (0.0, math.nan)}, r"config.interval=\(0.0, nan\) must be a number"),
        ({"interval": (0.0, "x")}, r"config.interval=.* must be numbers"),
        ({"weights": (1.0, math.inf)}, r"config.weights=\(1.0, inf\) must be finite"),
        ({"ends": (0.0, math.nan)}, "config.ends=.*nan.* must be a number"),
        ({"sizes": ()}, "config.sizes=.* at least one element"),
        ({"sizes": (8, 0)}, r"config.sizes=\(8, 0\) must be at least 1"),
        ({"sizes": (8, 1.5)}, r"config.sizes=\(8, 1.5\) must be whole numbers"),
        ({"names": ("x", "z")}, "config.names='z' is not known"),
        ({"kind": "fancyy"}, "config.kind='fancyy' is not known; did you mean 'fancy'"),
        ({"model": {"name": "c"}}, "config.model.name='c' is not known"),
        ({"model": {"name": "a", "width": 0}}, "config.model.width=0 must be at least 1"),
        ({"model": {"name": "a"}}, "config.model.width is missing"),
        (
            {"model": {"name": "b", "depth": 1, "p": 0.1, "dpeth": 1}},
            "dpeth is not a field .*depth",
        ),
    ],
    ids=str,
)
def test_a_value_that_is_not_allowed_is_named_with_its_rule(changes, said):
    with pytest.raises(UserError, match=said):
        check_fields(config(**changes), FIELDS)


def test_groups_are_joined_and_a_choice_refuses_fields_it_does_not_have():
    both = merged({"a": {"x": field(1)}}, {"a": {"x": field(2), "y": field(3)}})
    assert defaults(both) == {"a": {"x": 2, "y": 3}}
    with pytest.raises(KeyError, match="'a' has no field depth"):
        NETWORKS.select("a", depth=3)


def test_arguments_behind_the_colon_are_typed():
    known = {"smoke": False, "seeds": 1, "scale": 1.0}
    assert parse_argument("", known) == known
    assert parse_argument("smoke,seeds=5", known) == {"smoke": True, "seeds": 5, "scale": 1.0}
    assert parse_argument("scale=0.5,smoke=false", known)["scale"] == 0.5
    for wrong in ("smok", "seeds", "seeds=x", "seeds=0", "smoke=3"):
        with pytest.raises(UserError, match=f"config argument '{wrong}'"):
            parse_argument(wrong, known)


def test_a_workdir_from_before_a_field_resumes_while_the_field_has_its_default(tmp_path):
    now = vae_digits.get_config()
    there = json.loads(now.to_json())
    del there["model"]["blocks"], there["eval"]["resize"]
    (tmp_path / "config.json").write_text(json.dumps({"config": there}))
    assert check_workdir(tmp_path, now)
    now.model.blocks = 3
    with pytest.raises(UserError, match="config.model.blocks: 2 there, 3 now"):
        check_workdir(tmp_path, now)


SAMPLER_KEYS = [
    (family, key)
    for family in FAMILIES
    for key, value in flatten(find_family(family).default_config()).items()
    if key.startswith(("sample.", "strength", "style_shares")) and isinstance(value, float)
]


@pytest.mark.parametrize("family, key", SAMPLER_KEYS)
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_every_float_of_a_sampler_is_checked(family, key, bad):
    fields = find_family(family).FIELDS
    config = find_family(family).default_config()
    with config.unlocked():
        config.update_from_flattened_dict({key: bad})
    with pytest.raises(UserError, match=f"config.{key}="):
        check_config(config, fields, 1)


RELATED = {
    "sampler": {
        "name": field("heun"),
        "eta": field(0.0, only_with=one_of("sampler.name", "ddim", "sde")),
        "scale": field(1.0, only_with=is_set("sampler.eta")),
    },
    "average": field(0.0),
    "length": field(0.0),
    "warm": field(True, only_with=is_set("average", "length")),
    "late": field(2, only_with=(is_set("average"), other_than("sampler.name", "heun"))),
    "net": field("", only_with=starts_with("sampler.name", "s") | is_set("average")),
    "never": unused({"x": field(3)}),
}


def related(**changes):
    config = ConfigDict(defaults(RELATED))
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler.name": "ddim", "sampler.eta": 0.5},
        {"sampler.name": "sde", "sampler.eta": 0.5, "sampler.scale": 2.0, "net": "a"},
        {"length": 1.0, "warm": False},
        {"average": 1.0, "sampler.name": "ddim", "late": 1, "net": "a"},
    ],
    ids=str,
)
def test_a_field_with_its_condition_is_allowed(changes):
    check_idle(related(**changes), RELATED)


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"sampler.eta": 0.5},
            "config.sampler.eta=0.5 must be 0 with config.sampler.name=heun: it has no effect "
            "there, only with config.sampler.name=ddim or sde",
        ),
        # The cause, not the field between.
        ({"sampler.scale": 2.0}, "sampler.scale=2.0 must be 1 with config.sampler.eta=0.0"),
        ({"sampler.scale": 2.0, "sampler.eta": 0.5}, "config.sampler.eta=.*holds for .*scale"),
        ({"warm": False}, "warm=False must be True with config.average=0.0 and config.length=0.0"),
        ({"average": 1.0, "late": 1}, "late=1 must be 2 with config.sampler.name=heun"),
        ({"sampler.name": "ddim", "late": 1}, "late=1 must be 2 with config.average=0.0"),
        ({"net": "a"}, "net='a' must be '' with .* only with .*=s... or config.average set"),
        ({"never.x": 4}, "config.never.x=4 must be 3"),
    ],
    ids=str,
)
def test_a_field_without_an_effect_is_refused(changes, said):
    with pytest.raises(UserError, match=said) as info:
        check_idle(related(**changes), RELATED)
    assert "\n" not in str(info.value)
    check_idle(related(**changes), RELATED, used=tuple(changes))


def test_what_a_change_takes_the_effect_of_is_reset_and_the_rest_is_not():
    file = {"sampler.name": "ddim", "sampler.eta": 0.5, "sampler.scale": 2.0, "warm": False}
    changed = related(**{**file, "sampler.name": "heun"})
    forget_idle(changed, RELATED, ("sampler.name",))
    assert changed.sampler.to_dict() == {"name": "heun", "eta": 0.0, "scale": 1.0}
    assert changed.warm is False  # idle in the file itself: a mistake to be told
    kept = related(**{**file, "sampler.name": "heun"})
    forget_idle(
        kept, RELATED, ("sampler.name", "sampler.eta"), keep=("sampler.name", "sampler.eta")
    )
    assert kept.sampler.to_dict() == {"name": "heun", "eta": 0.5, "scale": 1.0}
    assert idle_defaults(kept, RELATED) == ["sampler.scale", "late", "net", "never.x"]


def test_a_workdir_with_a_value_that_had_no_effect_resumes_with_its_default(tmp_path):
    now = vae_digits.get_config()
    there = json.loads(now.to_json())
    there["model"]["blocks"], there["prior"]["components"] = 7, 3
    (tmp_path / "config.json").write_text(json.dumps({"config": there}))
    assert check_workdir(tmp_path, now)
