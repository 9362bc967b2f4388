"""Kills runs by kill -9, at random moments and at chosen points: what is lost, how do they end?

A run that was killed resumes from the newest checkpoint that was complete when it died, and ends
with the same bits (every leaf of the state, metrics.jsonl) as one that was never interrupted.

python -m faults.kill [--kills=100] [--seed=0] [--run=gan_digits]
"""

import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags, logging

from faults import harness, victim
from genjax.runner.command import run_main
from genjax.train.logs import read_metrics

KILLS = flags.DEFINE_integer("kills", 100, "Kills at random moments.")

# Which time that a point is reached: some points come once a run, some in every interval.
COUNTS = {point: 2 for point in victim.POINTS} | {
    "first compile": 1,
    "restore, before reading": 1,
    "restore, before checking": 1,
    "half a metrics line": 57,
    "metrics.jsonl half cut back": 1,
    "half a config.json": 1,
    "half a report.json": 1,
    "half a picture": 4,
}

# Of the random kills, those after the first step: kills before it prove little.
SHARE_AFTER_A_STEP = 0.85


def reference(folder: Path, overrides: harness.Overrides) -> dict[str, str]:
    """Returns the end of a run that is not interrupted, see `harness.end_of`."""
    workdir = folder / "uninterrupted"
    assert harness.finish(workdir, overrides) == 0, harness.messages(workdir)
    return harness.end_of(workdir, overrides)


def kill_at_point(
    folder: Path, overrides: harness.Overrides, expected: dict[str, str], point: str
) -> tuple[Any, ...]:
    """Lets a run die at a point and resumes it.

    Args:
      folder: of the workdirs.
      overrides: of the small run.
      expected: of `reference`.
      point: a key of `COUNTS`.

    Returns:
      A row of the table: (point, exit code, step of the newest checkpoint, step resumed at, lines
      of metrics when it died, "yes" if the end is the expected one, whether all is right).
    """
    workdir = folder / point.replace(" ", "_").replace(",", "")
    if point.startswith("restore") or point == "metrics.jsonl half cut back":
        # These points come in a run that resumes.
        harness.finish(workdir, overrides, die_at="half a metrics line:35")
    code = harness.finish(workdir, overrides, die_at=f"{point}:{COUNTS[point]}")
    saved = max(harness.steps_on_disk(workdir), default=0)
    lines = harness.num_lines(workdir)
    end_code = harness.finish(workdir, overrides)
    same = end_code == 0 and harness.end_of(workdir, overrides) == expected
    resumed = harness.resumed_at(workdir)
    right = code == -9 and resumed == saved and same
    return point, code, saved, resumed, lines, "yes" if same else "NO", right


def kill_at_random(
    folder: Path, overrides: harness.Overrides, expected: dict[str, str], kills: int, seed: int
) -> dict[str, Any]:
    """Kills at random moments, in as many runs as that takes.

    Returns:
      {"kills", "after the first step", "lost": resumed from an older checkpoint than there was,
      "runs", "different": ended with other bits, "redone": steps that each kill cost}.
    """
    rng = random.Random(seed)
    counts = {"kills": 0, "after the first step": 0, "lost": 0, "runs": 0, "different": 0}
    redone = []
    while counts["kills"] < kills:
        workdir = folder / f"random_{counts['runs']}"
        counts["runs"] += 1
        saved, code = 0, None
        while code != 0:
            seen = len(harness.messages(workdir))
            process = _start_and_kill(workdir, overrides, rng, counts["kills"] < kills)
            code = process.wait(timeout=300)
            messages = harness.messages(workdir)[seen:]
            assert code in (0, -9), messages
            # It resumes from what was complete when the process before it died.
            if "resuming" in messages:
                counts["lost"] += harness.resumed_at(workdir) != saved
            elif harness.num_lines(workdir):
                counts["lost"] += saved > 0 and "step 0" in messages
            if code == -9:
                counts["kills"] += 1
                saved = max(harness.steps_on_disk(workdir), default=0)
                steps = [line["step"] for line in read_metrics(workdir / "metrics.jsonl")]
                reached = max(steps, default=0)
                counts["after the first step"] += reached > 0
                redone.append(max(0, reached - saved))
        counts["different"] += harness.end_of(workdir, overrides) != expected
    return {**counts, "redone": redone}


def _start_and_kill(workdir, overrides, rng, kills) -> subprocess.Popen:
    """Starts the run; with `kills` sends kill -9 after a random time."""
    lines = harness.num_lines(workdir)
    process = harness.start(workdir, overrides)
    if kills:
        after_a_step = rng.random() < SHARE_AFTER_A_STEP
        if after_a_step:
            _wait_for_a_step(process, workdir, lines)
        time.sleep(rng.uniform(0.0, 1.2 if after_a_step else 3.0))
        process.kill()
    return process


def _wait_for_a_step(process, workdir, lines):
    """Waits until the number of lines changes; a resume makes it smaller."""
    while process.poll() is None and harness.num_lines(workdir) == lines:
        time.sleep(0.01)


def main(argv: list[str]) -> None:
    """Prints a table of the points and numbers of the random kills; exits with 1 if one fails."""
    del argv
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = reference(folder, {})
        rows = [kill_at_point(folder, {}, expected, point) for point in COUNTS]
        header = ("killed at", "exit", "saved", "resumed", "lines", "same end", "right")
        print(harness.table(rows, header), flush=True)
        counts = kill_at_random(folder, {}, expected, KILLS.value, harness.SEED.value)
    redone = counts.pop("redone")
    print("\n".join(f"{key}: {value}" for key, value in counts.items()))
    mean = sum(redone) / len(redone)
    print(f"steps redone per kill: {mean:.1f} on average, {max(redone)} at most")
    wrong = counts["lost"] + counts["different"] + sum(not row[-1] for row in rows)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
