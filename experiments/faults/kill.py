"""kill -9, at random moments and at chosen points, again and again: what is lost, and what ends up.

A run that was killed goes on from the newest checkpoint that was whole when it died, and ends with
the same bits (every leaf of the state, metrics.jsonl) as one that was never touched.

python -m experiments.faults.kill [--kills=100] [--seed=0] [--run=gan_digits]
"""

import random
import tempfile
import time
from pathlib import Path

from absl import flags, logging

from experiments.command import run_main
from experiments.faults import harness, victim
from genjax.train.logs import read_metrics

KILLS = flags.DEFINE_integer("kills", 100, "Kills at random moments.")

# Which time at each point: some are come to once a run, some in every interval.
AIMED = {point: 2 for point in victim.POINTS} | {
    "first compile": 1,
    "restore, before reading": 1,
    "restore, before checking": 1,
    "half a metrics line": 57,
    "metrics.jsonl half cut back": 1,
    "half a config.json": 1,
    "half a report.json": 1,
    "half a picture": 4,
}


def reference(folder, overrides):
    """The end of the run that nobody touches."""
    assert harness.finish(folder / "untouched", overrides) == 0, harness.messages(
        folder / "untouched"
    )
    return harness.end_of(folder / "untouched", overrides)


def aimed(folder, overrides, expected, point):
    """Dies at a point, goes on, and says how it went: a row of the table."""
    workdir = folder / point.replace(" ", "_").replace(",", "")
    if point.startswith("restore") or point == "metrics.jsonl half cut back":
        # Something to come back to first.
        harness.finish(workdir, overrides, die_at="half a metrics line:35")
    code = harness.finish(workdir, overrides, die_at=f"{point}:{AIMED[point]}")
    saved = max(harness.steps_on_disk(workdir), default=0)
    reached = harness.last_line(workdir)
    ended = harness.finish(workdir, overrides)
    same = ended == 0 and harness.end_of(workdir, overrides) == expected
    right = code == -9 and harness.resumed_at(workdir) == saved and same
    return point, code, saved, harness.resumed_at(workdir), reached, "yes" if same else "NO", right


def at_random(folder, overrides, expected, kills, seed):
    """Kills so many times, in as many runs as that takes.

    Returns:
      {"kills", "after the first step", "lost", "runs", "different", "redone": steps redone a kill}.
    """
    chance = random.Random(seed)
    found = {"kills": 0, "after the first step": 0, "lost": 0, "runs": 0, "different": 0}
    redone = []
    while found["kills"] < kills:
        workdir = folder / f"random_{found['runs']}"
        found["runs"] += 1
        saved, code = 0, None
        while code != 0:
            lines, said = harness.last_line(workdir), len(harness.messages(workdir))
            process = harness.start(workdir, overrides)
            if found["kills"] < kills:
                # Most of them after the first step, else they would prove little.
                after_a_step = chance.random() < 0.85
                if after_a_step:
                    _wait_for_a_step(process, workdir, lines)
                time.sleep(chance.uniform(0.0, 1.2 if after_a_step else 3.0))
                process.kill()
            code = process.wait(timeout=300)
            said = harness.messages(workdir)[said:]
            assert code in (0, -9), said
            # What it went on from is what was whole when the one before it died.
            if "resuming" in said:
                found["lost"] += harness.resumed_at(workdir) != saved
            elif harness.last_line(workdir):
                found["lost"] += saved > 0 and "step 0" in said
            if code == -9:
                found["kills"] += 1
                saved = max(harness.steps_on_disk(workdir), default=0)
                reached = max([line["step"] for line in _lines(workdir)], default=0)
                found["after the first step"] += reached > 0
                redone.append(max(0, reached - saved))
        found["different"] += harness.end_of(workdir, overrides) != expected
    found["redone"] = redone
    return found


def _wait_for_a_step(process, workdir, lines):
    """Until there is a line more than there was, or fewer: then they were cut back by a resume."""
    while process.poll() is None and harness.last_line(workdir) == lines:
        time.sleep(0.01)


def _lines(workdir):
    return read_metrics(workdir / "metrics.jsonl")


def main(_):
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = reference(folder, {})
        rows = [aimed(folder, {}, expected, point) for point in AIMED]
        header = ("killed at", "exit", "saved", "resumed", "lines", "same end", "right")
        print(harness.table(rows, header), flush=True)
        found = at_random(folder, {}, expected, KILLS.value, harness.SEED.value)
    redone = found.pop("redone")
    print("\n".join(f"{key}: {value}" for key, value in found.items()))
    print(f"steps redone a kill: {sum(redone) / len(redone):.1f} on average, {max(redone)} at most")
    wrong = found["lost"] + found["different"] + sum(not row[-1] for row in rows)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
