"""The first steps of every config, spread over devices and parts in several ways: the same steps?

Each config at its smallest, in float32, on one device; then on four under pmap, and in four parts
of a batch that are worked through one after another. All metrics of the steps have to agree up to
rounding, or the config has to be refused in one line.

python -m faults.same_step [--configs=vae_digits,cnn_mnist]
"""

import importlib
import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from benchmarks.steps import step_metrics
from genjax.errors import UserError
from genjax.runner.command import run_main
from genjax.runner.run import Run, set_up_process

ROOT = Path(__file__).parent.parent
DEVICES = 4
STEPS = 3
CLOSE = 2e-3  # of the largest metric of that name; GANs amplify rounding

CONFIGS = flags.DEFINE_list("configs", [], "Names of configs; all if none is given.")

# Name -> (parallel, devices, optim.accumulate_steps).
WAYS = {"pmap": ("pmap", DEVICES, 1), "parts": ("jit", 1, 4), "both": ("pmap", 2, 2)}


def small(name: str) -> ConfigDict:
    """Returns a config at its smallest, in float32, with a batch that can be divided."""
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.compute_dtype = "float32"
    config.eval.num_samples = config.eval.num_samples_in_loop = 0
    config.checkpoint.best_metric = ""
    if config.batch_size > 1:
        config.batch_size = 4 * DEVICES
    return config


def steps(config: ConfigDict, way: tuple[str, int, int]) -> list[dict[str, float]]:
    """Returns the metrics of the first steps, trained in one way."""
    config = config.copy_and_resolve_references()
    config.parallel, config.num_devices, config.optim.accumulate_steps = way
    return step_metrics(Run.build(config), STEPS)


def difference(rows: list[dict[str, float]], others: list[dict[str, float]]) -> float:
    """Returns the largest difference of two runs' metrics, relative to the largest of its name."""
    scale = {k: max(abs(row[k]) for row in rows) + 1e-6 for k in rows[0]}
    pairs = zip(rows, others, strict=True)
    return max(abs(a[k] - b[k]) / scale[k] for a, b in pairs for k in a)


def compare(config: ConfigDict) -> dict[str, float | str]:
    """Returns for each way the largest difference, or the line that refuses it."""
    rows, results = steps(config, ("jit", 1, 1)), {}
    for name, way in WAYS.items():
        try:
            results[name] = difference(rows, steps(config, way))
        except UserError as error:
            results[name] = str(error)
    return results


def main(argv: list[str]) -> None:
    """Prints a line for each config and way; exits with 1 if one differs."""
    del argv
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # a third of the time
    set_up_process()
    names = CONFIGS.value or sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    failed = 0
    for name in names:
        for way, result in compare(small(name)).items():
            differs = not isinstance(result, str) and not result <= CLOSE
            text = result if isinstance(result, str) else f"{result:.1e}"
            print(f"{name:28}{way:6}{'DIFFERS ' * differs}{text}", flush=True)
            failed += differs
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_main(main)
