"""Runs every config at its smallest, as a user does, and checks the numbers.

Each is a process of its own, with an empty cache of compiled programs and of data. It fails if it
ends with another exit code than 0, or if a number in its report or log is not finite. Then another
process, which compiles without XLA's optimizations, evaluates the same state in float32 and repeats
the first steps (`benchmarks/smoke_reference.py`): each number that differs by more than the
tolerance is printed and counts as a failure.

python -m benchmarks.smokes [--configs=vae_digits,cnn_mnist] [--jobs=1] [--reference]
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import flags

from genjax.runner.command import run_main
from genjax.train.logs import read_metrics

ROOT = Path(__file__).parent.parent

# Differences, as shares of the larger number. Numbers of generated images: rounding flips pixels
# of an image that is drawn one after another, and moves the nearest neighbours of others.
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.05}
SAMPLED_TOLERANCE = {"float32": 0.05, "bfloat16": 0.3}
SAMPLED = re.compile(r"eval/(fd|kd|kid|precision|recall|density|coverage|copies|inception|modes)")
SMALL = 1e-3  # smaller numbers may differ by so many times the tolerance

CONFIGS = flags.DEFINE_list("configs", [], "Names of configs; all if none is given.")
JOBS = flags.DEFINE_integer("jobs", 1, "How many at a time.", lower_bound=1)
REFERENCE = flags.DEFINE_bool("reference", True, "Compare with float32 without optimizations.")


def check(name: str, reference: bool) -> tuple[str, list[str]]:
    """Returns a line about a config, and what is wrong with its smoke."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = _run(
            folder, "launch.py", f"--config=configs/{name}.py:smoke", f"--workdir={folder}/run"
        )
        line = f"{name:28}{done.returncode:3}{time.perf_counter() - start:7.1f} s"
        if done.returncode:
            return line, [done.stderr[-800:]]
        report = json.loads(Path(folder, "run/report.json").read_text())
        logged = read_metrics(Path(folder, "run/metrics.jsonl"))
        wrong = not_finite(report, *logged)
        if wrong or not reference:
            return line, wrong
        environment = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        arguments = ("-m", "benchmarks.smoke_reference", f"--name={name}", f"--run={folder}/run")
        done = _run(folder, *arguments, **environment)
        if done.returncode:
            return line, [done.stderr[-800:]]
        expected = json.loads(done.stdout.splitlines()[-1])
    dtype = expected.pop("compute_dtype")
    found = {**next((row for row in logged if "train/loss" in row), {}), **report}
    wrong, largest = differences(found, expected, dtype)
    return f"{line} {len(expected):3} numbers, largest difference {largest:.1e} ({dtype})", wrong


def not_finite(*rows: dict[str, Any]) -> list[str]:
    """Returns a line for each value that is not finite (null in JSON)."""
    bad = lambda x: x is None or (isinstance(x, float) and not math.isfinite(x))
    return [f"{k} is {v} at step {row['step']}" for row in rows for k, v in row.items() if bad(v)]


def differences(
    found: dict[str, Any], expected: dict[str, float], dtype: str
) -> tuple[list[str], float]:
    """Returns (a line for each number that differs too much, the largest difference)."""
    wrong, largest = [], 0.0
    for key, number in expected.items():
        tolerance = (SAMPLED_TOLERANCE if SAMPLED.match(key) else TOLERANCE)[dtype]
        scale = max(abs(number), abs(found[key]), SMALL)
        difference = abs(found[key] - number) / scale
        largest = max(largest, difference)
        if not difference <= tolerance:
            wrong.append(f"{key}: {found[key]}, but {number} in float32 without optimizations")
    return wrong, largest


def _run(folder: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "GENJAX_CACHE": folder, **environment},
        capture_output=True,
        text=True,
    )


def main(argv: list[str]) -> None:
    """Prints a line for each config; exits with 1 if one fails."""
    del argv
    names = CONFIGS.value or sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    failed = 0
    with ThreadPoolExecutor(JOBS.value) as pool:
        for line, wrong in pool.map(lambda name: check(name, REFERENCE.value), names):
            print("\n  ".join([line, *wrong]), flush=True)
            failed += bool(wrong)
    print(f"{len(names) - failed} of {len(names)} passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_main(main)
