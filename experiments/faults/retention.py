"""Saves and kills at random: afterwards exactly the checkpoints are there that should be.

Steps are saved one after another by a process that is killed again and again. After every kill
each step that is listed restores with the right values, and none is missing; in the end the set is
that of the policy: the last ones, every n-th, the best.

python -m experiments.faults.retention [--saves=1000] [--seed=0]
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

import jax.numpy as jnp
from absl import flags, logging

from experiments.command import run_main
from experiments.faults import harness
from genjax.errors import UserError
from genjax.train.checkpoint import Checkpoints

SAVES = flags.DEFINE_integer("saves", 1000, "Steps to save in all.")

POLICY = {"keep_last": 3, "keep_every": 100, "best_metric": "fd", "best_mode": "min"}


def state_of(step):
    return {"w": jnp.full((64,), step, jnp.float32), "step": jnp.asarray(step, jnp.int32)}


def metric_of(step, seed):
    return {"fd": random.Random(f"{seed}/{step}").random()}


def expected(last, seed):
    """What should be there after steps 1 to `last`."""
    steps = range(1, last + 1)
    best = min(steps, key=lambda s: metric_of(s, seed)["fd"])
    return sorted({*steps[-3:], *(s for s in steps if s % 100 == 0), best})


def save_on(folder, last, seed):
    """In a process of its own: saves from where the one before came to."""
    checkpoints = Checkpoints(folder, **POLICY)
    for step in range(max(checkpoints.steps(), default=0) + 1, last + 1):
        checkpoints.save(step, state_of(step), {}, metric_of(step, seed))
    checkpoints.close()


def look(folder, seed, report):
    """In a process of its own: checks every step that is listed."""
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
    missing = sorted(set(expected(steps[-1], seed)) - set(steps)) if steps else []
    report.put((steps, broken, missing))


def run(folder, saves, seed):
    """Returns {"saves", "kills", "broken", "missing", "left over", "as expected"}."""
    # Forked from a process that has imported everything and touched no device.
    context = multiprocessing.get_context("fork")
    chance = random.Random(seed)
    found = collections.Counter(saves=saves, kills=0, broken=0, missing=0)
    while True:
        saver = context.Process(target=save_on, args=(folder, saves, seed))
        saver.start()
        saver.join(chance.uniform(0.25, 0.7))
        killed = saver.is_alive()
        if killed:
            os.kill(saver.pid, signal.SIGKILL)
            found["kills"] += 1
        saver.join()
        report = context.SimpleQueue()
        looker = context.Process(target=look, args=(folder, seed, report))
        looker.start()
        steps, broken, missing = report.get()
        looker.join()
        found["broken"] += len(broken)
        found["missing"] += len(missing)
        if not killed and saver.exitcode == 0:
            break
    left_over = [p.name for p in Path(folder).iterdir() if not p.name.isdecimal()]
    return {**found, "left over": left_over, "as expected": steps == expected(saves, seed)}


def main(_):
    logging.set_verbosity(logging.ERROR)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        found = run(folder, SAVES.value, harness.SEED.value)
    print(json.dumps({**found, "seconds": round(time.time() - began)}, indent=1))
    wrong = found["broken"] or found["missing"] or found["left over"] or not found["as expected"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
