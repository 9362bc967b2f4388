"""Damages every file of the newest checkpoint in every way: is a wrong value ever accepted?

python -m faults.corrupt [--bits=3] [--seed=0]
"""

import collections
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from faults import harness
from genjax.errors import RunError
from genjax.runner.command import run_main
from genjax.runner.run import Run
from genjax.train.checkpoint import Checkpoints, checksums

BITS = flags.DEFINE_integer("bits", 3, "Bits to flip in each file, one at a time.")

STEPS = (10, 20, 30)

ACCEPTED = "right values"
FELL_BACK = "fell back with a warning"


def flip_bit(path: Path, rng: random.Random) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    position = rng.randrange(8 * len(data))
    data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    """Cuts a file off somewhere."""
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def zero(path: Path, rng: random.Random) -> None:
    """Sets 64 bytes of a file to zero."""
    first = rng.randrange(path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[first : first + 64] = bytes(len(data[first : first + 64]))
    path.write_bytes(data)


def delete(path: Path, rng: random.Random) -> None:
    """Deletes a file."""
    path.unlink()


FAULTS: dict[str, Callable[[Path, random.Random], None]] = {
    "flip one bit": flip_bit,
    "truncate": truncate,
    "zero 64 bytes": zero,
    "delete": delete,
}


def train_run(folder: Path) -> tuple[Path, Any, dict[int, dict[str, int]]]:
    """Trains the small run.

    Returns:
      (the folder of its checkpoints, what they are restored into, {step: checksums}).
    """
    overrides = {"num_train_steps": STEPS[-1], "checkpoint.keep_last": len(STEPS)}
    assert harness.finish(folder / "run", overrides) == 0, harness.messages(folder / "run")
    template = jax.eval_shape(Run.build(harness.config_of(overrides)).init)
    checkpoints = folder / "run" / "checkpoints"
    expected = {s: checksums(Checkpoints(checkpoints).restore(template, s)[0]) for s in STEPS}
    return checkpoints, template, expected


def outcome(folder: Path, template: Any, expected: dict[int, dict[str, int]]) -> str:
    """Restores from a folder whose newest checkpoint is damaged; returns what happened."""
    messages = []
    try:
        state, _ = Checkpoints(folder, warn=messages.append).restore(template)
    except RunError:
        return "refused, though there are good ones"
    step = int(state.step)
    if step not in expected or checksums(state) != expected[step]:
        return "WRONG VALUES"
    if step == STEPS[-1]:
        return ACCEPTED
    warned = len(messages) == 1 and f"step {STEPS[-1]} is bad" in messages[0]
    return FELL_BACK if warned and step == STEPS[-2] else "fell back without a warning"


def trials(
    checkpoints: Path,
    template: Any,
    expected: dict[int, dict[str, int]],
    bits: int,
    seed: int,
    every: int = 1,
) -> Iterator[tuple[str, str]]:
    """Tries every fault on every file of the newest checkpoint.

    Args:
      checkpoints, template, expected: of `train_run`.
      bits: flipped in each file, one at a time.
      seed: of where faults are.
      every: tries only each `every`-th fault.

    Yields:
      (fault, outcome).
    """
    rng = random.Random(seed)
    newest = (checkpoints / str(STEPS[-1])).rglob("*")
    names = sorted(p.relative_to(checkpoints) for p in newest if p.is_file())
    faults = []
    for name in names:
        for fault, damage in FAULTS.items():
            if damage is delete or (checkpoints / name).stat().st_size:  # else nothing to damage
                faults += [(name, fault, damage)] * (bits if damage is flip_bit else 1)
    for name, fault, damage in faults[::every]:
        with tempfile.TemporaryDirectory() as copy:
            folder = Path(copy) / "checkpoints"
            shutil.copytree(checkpoints, folder)
            damage(folder / name, rng)
            yield fault, outcome(folder, template, expected)


def refuses_if_all_are_bad(checkpoints: Path, template: Any) -> bool:
    """Returns whether a folder without a good checkpoint is refused, with each step named, and
    nothing in it is changed."""
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy) / "checkpoints"
        shutil.copytree(checkpoints, folder)
        for step in STEPS:
            (folder / str(step) / "meta" / "metadata").write_text("{}")
        for _ in range(2):  # twice: after a refusal the run does not start from step 0 either
            try:
                Checkpoints(folder).restore(template)
                return False
            except RunError as error:
                if not all(f"step {step}: " in str(error) for step in STEPS):
                    return False
        return harness.steps_on_disk(folder.parent) == list(STEPS)


def main(argv: list[str]) -> None:
    """Prints a table; exits with 1 where an outcome is wrong."""
    del argv
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        run = train_run(Path(name))
        counts = collections.defaultdict(collections.Counter)
        for fault, result in trials(*run, BITS.value, harness.SEED.value):
            counts[fault][result] += 1
        refused = refuses_if_all_are_bad(*run[:2])
    outcomes = sorted({result for counter in counts.values() for result in counter})
    rows = [(fault, *(counts[fault][o] for o in outcomes)) for fault in FAULTS]
    print(harness.table(rows, ("fault", *outcomes)))
    total = sum(counts.values(), collections.Counter())
    print(json.dumps({"faults": total.total(), **total, "all bad is refused": refused}, indent=1))
    sys.exit(0 if refused and set(total) <= {ACCEPTED, FELL_BACK} else 1)


if __name__ == "__main__":
    run_main(main)
