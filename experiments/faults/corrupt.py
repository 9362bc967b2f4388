"""Every file of the newest checkpoint, damaged in every way: is a wrong value ever believed?

python -m experiments.faults.corrupt [--bits=3] [--seed=0]
"""

import collections
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import jax
from absl import flags, logging

from experiments.command import run_main
from experiments.faults import harness
from experiments.run import Run
from genjax.errors import RunError
from genjax.train.checkpoint import Checkpoints, checksums

BITS = flags.DEFINE_integer("bits", 3, "Bits to flip in each file, one at a time.")

STEPS = (10, 20, 30)


def flip(path, chance):
    data = bytearray(path.read_bytes())
    place = chance.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def truncate(path, chance):
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def zero(path, chance):
    size = path.stat().st_size
    begin = chance.randrange(size)
    data = bytearray(path.read_bytes())
    data[begin : begin + 64] = bytes(len(data[begin : begin + 64]))
    path.write_bytes(data)


def delete(path, chance):
    path.unlink()


FAULTS = {"flip one bit": flip, "truncate": truncate, "zero 64 bytes": zero, "delete": delete}


def made(folder):
    """Trains the small run; returns (its checkpoints' folder, template, {step: checksums})."""
    overrides = {"num_train_steps": STEPS[-1], "checkpoint.keep_last": len(STEPS)}
    assert harness.finish(folder / "run", overrides) == 0, harness.messages(folder / "run")
    template = jax.eval_shape(Run.build(harness.config_of(overrides)).init)
    whole = folder / "run" / "checkpoints"
    right = {s: checksums(Checkpoints(whole).restore(template, s)[0]) for s in STEPS}
    return whole, template, right


def outcome(folder, template, right):
    """What a restore makes of a folder whose newest checkpoint is damaged."""
    said = []
    try:
        state, _ = Checkpoints(folder, warn=said.append).restore(template)
    except RunError:
        return "refused, though good ones are there"
    step = int(state.step)
    if step not in right or checksums(state) != right[step]:
        return "WRONG VALUES"
    if step == STEPS[-1]:
        return "right"
    told = len(said) == 1 and f"step {STEPS[-1]} is bad" in said[0]
    return "fell back and said so" if told and step == STEPS[-2] else "fell back in silence"


def trials(whole, template, right, bits, seed, every=1):
    """Yields (fault, outcome) for every file of the newest checkpoint and every fault.

    `bits` are flipped in each file; with `every` above 1, only each so-many-th fault is tried.
    """
    chance = random.Random(seed)
    names = sorted(p.relative_to(whole) for p in (whole / str(STEPS[-1])).rglob("*") if p.is_file())
    faults = []
    for name in names:
        for fault, damage in FAULTS.items():
            if damage is delete or (whole / name).stat().st_size:  # else nothing to damage
                faults += [(name, fault, damage)] * (bits if damage is flip else 1)
    for name, fault, damage in faults[::every]:
        with tempfile.TemporaryDirectory() as copy:
            folder = Path(copy) / "checkpoints"
            shutil.copytree(whole, folder)
            damage(folder / name, chance)
            yield fault, outcome(folder, template, right)


def all_bad(whole, template):
    """Whether a folder in which nothing is good is refused, every step named, nothing changed."""
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy) / "checkpoints"
        shutil.copytree(whole, folder)
        for step in STEPS:
            (folder / str(step) / "meta" / "metadata").write_text("{}")
        for _ in range(2):  # and again: what was refused once is not begun afresh the next time
            try:
                Checkpoints(folder).restore(template)
                return False
            except RunError as error:
                if not all(f"step {step}: " in str(error) for step in STEPS):
                    return False
        return harness.steps_on_disk(folder.parent) == list(STEPS)


def main(_):
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        whole, template, right = made(Path(name))
        counts = collections.defaultdict(collections.Counter)
        for fault, result in trials(whole, template, right, BITS.value, harness.SEED.value):
            counts[fault][result] += 1
        refused = all_bad(whole, template)
    outcomes = sorted({result for counter in counts.values() for result in counter})
    rows = [(fault, *(counts[fault][o] for o in outcomes)) for fault in FAULTS]
    print(harness.table(rows, ("fault", *outcomes)))
    total = sum(counts.values(), collections.Counter())
    print(json.dumps({"faults": total.total(), **total, "all bad is refused": refused}, indent=1))
    sys.exit(0 if refused and set(total) <= {"right", "fell back and said so"} else 1)


if __name__ == "__main__":
    run_main(main)
