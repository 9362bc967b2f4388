"""Programs of runs whose data and devices are not here."""

import dataclasses
import importlib
from pathlib import Path

import jax
import pytest

from genjax.devices import compute_capability, platform, tracing_for
from genjax.errors import UserError
from genjax.runner.ahead import programs, run_without_data
from genjax.train.parallel import Parallel

CONFIGS = sorted(path.stem for path in Path("configs").glob("*.py"))


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A device of which only this much is known."""

    platform: str
    compute_capability: str = ""


DEVICES = {"tpu": Elsewhere("tpu"), "cuda": Elsewhere("gpu", "9.0")}


@dataclasses.dataclass(frozen=True)
class ParallelElsewhere(Parallel):
    """Traces for a device that is not here, over CPUs, whose programs are then lowered for it."""

    target: Elsewhere = DEVICES["tpu"]

    @property
    def platform(self):
        return self.target.platform

    def tracing(self):
        return tracing_for(self.target)


def lowered(config, target, variant="smoke"):
    """The text of each program of a config, lowered for "tpu" or "cuda"."""
    config = importlib.import_module(f"configs.{config}").get_config(variant)
    here = Parallel.create("jit", 1)
    run = run_without_data(config, ParallelElsewhere("jit", here.devices, DEVICES[target]))
    return {
        name: function.trace(*shapes).lower(lowering_platforms=(target,)).as_text()
        for name, (function, shapes) in programs(run).items()
    }


def test_the_platform_is_that_of_the_program_which_is_traced():
    assert platform() == "cpu" and compute_capability() == 0
    with tracing_for(DEVICES["cuda"]):
        assert platform() == "gpu" and compute_capability() == 9
        with tracing_for(DEVICES["tpu"]):
            assert platform() == "tpu"
    assert platform() == "cpu"


def test_what_was_traced_for_one_device_is_not_taken_for_another():
    named = jax.jit(lambda x: x + {"cpu": 1, "tpu": 2}[platform()])
    assert named(0) == 1
    with tracing_for(DEVICES["tpu"]):
        assert named(0) == 2
    assert named(0) == 1


# One of each family, and what has its own form on an accelerator. The others are `long`.
SHORT = ("vae_mnist", "gan_mnist", "pixelsnail_mnist", "edm_cifar10", "airbench_cifar10")


@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize(
    "config", [c if c in SHORT else pytest.param(c, marks=pytest.mark.long) for c in CONFIGS]
)
def test_every_program_of_a_config_lowers_for_an_accelerator(config, target):
    try:
        found = lowered(config, target)
    except UserError as error:
        assert "has no training" in str(error)  # drawn in one pass
        return
    assert {"step", "evaluate"} <= set(found)
    assert all("func.func public @main" in text for text in found.values())
