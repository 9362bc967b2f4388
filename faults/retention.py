"""Saves and kills at random: are exactly the right checkpoints there afterwards?

Steps are saved one after another by a process that is killed again and again. After every kill
each step that is listed restores with the right values, and none is missing; at the end they are
those of the policy: the last ones, every n-th, the best.

python -m faults.retention [--saves=1000] [--seed=0]
"""

import collections
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags, logging

from faults import harness
from genjax.errors import UserError
from genjax.runner.command import run_main
from genjax.train.checkpoint import Checkpoints

SAVES = flags.DEFINE_integer("saves", 1000, "Steps to save in all.")

POLICY = {"keep_last": 3, "keep_every": 100, "best_metric": "fd", "best_mode": "min"}


def state_of(step: int) -> dict[str, jax.Array]:
    """Returns the state that is saved at a step."""
    return {"w": jnp.full((64,), step, jnp.float32), "step": jnp.asarray(step, jnp.int32)}


def metric_of(step: int, seed: int) -> dict[str, float]:
    """Returns the metric that a step is saved with."""
    return {"fd": random.Random(f"{seed}/{step}").random()}


def expected_steps(last: int, seed: int) -> list[int]:
    """Returns the steps that the policy keeps of steps 1 to `last`."""
    steps = range(1, last + 1)
    best = min(steps, key=lambda s: metric_of(s, seed)["fd"])
    return sorted({*steps[-3:], *(s for s in steps if s % 100 == 0), best})


def save_remaining(folder: str, last: int, seed: int) -> None:
    """Saves from the newest step on, in a process of its own."""
    checkpoints = Checkpoints(folder, **POLICY)
    for step in range(max(checkpoints.steps(), default=0) + 1, last + 1):
        checkpoints.save(step, state_of(step), {}, metric_of(step, seed))
    checkpoints.close()


def check_steps(folder: str, seed: int, results: Any) -> None:
    """Restores every step that is listed, in a process of its own.

    Args:
      folder: of the checkpoints.
      seed: of the metrics.
      results: a queue for (steps, those that are broken, those that are missing).
    """
    checkpoints = Checkpoints(folder, read_only=True, **POLICY)
    steps = checkpoints.steps()
    broken = []
    for step in steps:
        try:
            state, _ = checkpoints.restore(state_of(0), step)
            if not (state["w"] == step).all() or int(state["step"]) != step:
                broken.append(step)
        except UserError:
            broken.append(step)
    missing = sorted(set(expected_steps(steps[-1], seed)) - set(steps)) if steps else []
    results.put((steps, broken, missing))


def run(folder: str, saves: int, seed: int) -> dict[str, Any]:
    """Saves and kills until all steps are saved.

    Returns:
      {"saves", "kills", "broken", "missing", "left over": names of other files, "as expected"}.
    """
    # Forked from a process that has imported everything and touched no device.
    context = multiprocessing.get_context("fork")
    rng = random.Random(seed)
    counts = collections.Counter(saves=saves, kills=0, broken=0, missing=0)
    steps, patience = [], 1.0  # a busy machine needs more time for a save
    while True:
        before = steps
        saver = context.Process(target=save_remaining, args=(folder, saves, seed))
        saver.start()
        saver.join(patience * rng.uniform(0.25, 0.7))
        killed = saver.is_alive()
        if killed:
            os.kill(saver.pid, signal.SIGKILL)
            counts["kills"] += 1
        saver.join()
        results = context.SimpleQueue()
        checker = context.Process(target=check_steps, args=(folder, seed, results))
        checker.start()
        steps, broken, missing = results.get()
        checker.join()
        counts["broken"] += len(broken)
        counts["missing"] += len(missing)
        patience = 1.5 * patience if steps == before else max(1.0, patience / 1.2)
        if not killed and saver.exitcode == 0:
            break
    left_over = [p.name for p in Path(folder).iterdir() if not p.name.isdecimal()]
    return {**counts, "left over": left_over, "as expected": steps == expected_steps(saves, seed)}


def main(argv: list[str]) -> None:
    """Prints the results; exits with 1 if something is wrong."""
    del argv
    logging.set_verbosity(logging.ERROR)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        results = run(folder, SAVES.value, harness.SEED.value)
    print(json.dumps({**results, "seconds": round(time.time() - began)}, indent=1))
    wrong = any(results[name] for name in ("broken", "missing", "left over"))
    sys.exit(1 if wrong or not results["as expected"] else 0)


if __name__ == "__main__":
    run_main(main)
