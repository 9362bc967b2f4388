"""One device or four, a whole batch or its parts: the same steps, or a line that refuses it."""

import json

import pytest

COMPARE = """
import json, sys
from faults.same_step import compare, small

for name, overrides in json.loads(sys.argv[1]):
    config = small(name)
    config.update_from_flattened_dict(overrides)
    print(json.dumps(compare(config)), flush=True)
"""


def results(python, *runs):
    out = python(COMPARE, json.dumps(runs), devices=4)
    assert out.returncode == 0, out.stderr
    return [json.loads(line) for line in out.stdout.splitlines()]


def test_dropout_and_free_bits(python):
    runs = [
        ("cnn_digits", {"model.dropout": 0.5}),
        ("vae_mlp_mnist", {"objective.free_bits": 0.1}),
    ]
    dropout, free_bits = results(python, *runs)
    assert max(dropout.values()) < 1e-5
    assert free_bits["pmap"] < 1e-5
    for way in ("parts", "both"):
        assert "accumulate_steps" in free_bits[way] and "objective.free_bits" in free_bits[way]


@pytest.mark.long
def test_a_config_of_each_kind(python):
    same = (
        "pixelcnn_digits", "pixelcnn_pp_cifar10", "diffusion_digits", "meanflow_mnist",
        "consistency_cifar10", "vdvae_mnist", "iwae_mnist", "style_feedforward",
    )  # fmt: skip
    for name, ways in zip(same, results(python, *((name, {}) for name in same)), strict=True):
        assert max(ways.values()) < 2e-3, (name, ways)
    whole = ("gan_digits", "resnet18_cifar10", "vqvae_cifar10", "style_adain")
    for name, ways in zip(whole, results(python, *((name, {}) for name in whole)), strict=True):
        assert ways["pmap"] < 2e-3, (name, ways)
        assert all("accumulate_steps" in ways[way] for way in ("parts", "both")), (name, ways)


def test_averaged_parameters_are_not_evaluated_with_statistics_of_others(python):
    code = """
from configs import resnet18_cifar10
from genjax.errors import UserError
from genjax.runner.run import Run
for name in ("decay", "half_life_images"):
    config = resnet18_cifar10.get_config("smoke")
    config.ema[name] = 0.9
    try:
        Run.build(config)
    except UserError as error:
        print(error)
"""
    out = python(code)
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert len(lines) == 2 and all("batch_stats" in line for line in lines), lines
