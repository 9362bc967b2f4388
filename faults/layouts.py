"""Runs on any number of devices and processes: do the numbers agree, is anything lost?

python -m faults.layouts [--steps=100]
"""

import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from faults import harness
from genjax.runner.command import run_main
from genjax.train.logs import read_metrics

STEPS = flags.DEFINE_integer("steps", 100, "Steps of each run.")

HEARTBEAT_SECONDS = 10

# Relative difference of two losses that counts as agreement: rounding, which training amplifies.
CLOSE = 1e-4

Layout = tuple[int, int]  # (processes, virtual devices of each)
LAYOUTS: tuple[Layout, ...] = ((1, 1), (1, 8), (2, 2))
KINDS = ("jit", "pmap", "fsdp")


# ---- Runs on a layout ----


def settings(kind: str, steps: int, **more: Any) -> dict[str, Any]:
    """Returns the overrides of a run with one checkpoint half-way, from which `moved` resumes."""
    return {
        "parallel": kind,
        "num_train_steps": steps,
        "eval_every_steps": 0,
        "sample_every_steps": 0,
        "checkpoint_every_steps": steps // 2,
        "checkpoint.keep_last": 2,
        "batch_size": 16,
        "optim.accumulate_steps": 1,
        "model.encoder_hidden": 16,  # a layer large enough for fsdp to shard
        **more,
    }


def often_saved(kind: str, steps: int) -> dict[str, Any]:
    """Returns those of a run that is interrupted; its length is no constant of its program."""
    more = {"optim.schedule": "constant", "checkpoint_every_steps": 10, "requeue_exit_code": 75}
    return settings(kind, steps, **more)


def endless(kind: str) -> dict[str, Any]:
    """Returns those of a run that is saved and ended by a signal alone."""
    return often_saved(kind, 10**6) | {"checkpoint_every_steps": 0}


def start(
    workdir: Path,
    overrides: harness.Overrides,
    processes: int = 1,
    devices: int = 1,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> list[subprocess.Popen]:
    """Starts all processes of a run."""
    if processes == 1:
        return [harness.start(workdir, overrides, devices=devices)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
    shared.append(f"--heartbeat_seconds={heartbeat_seconds}")
    one = lambda i: [*shared, f"--process_id={i}"]
    return [
        harness.start(workdir, overrides, arguments=one(i), devices=devices)
        for i in range(processes)
    ]


def finish(
    workdir: Path, overrides: harness.Overrides, processes: int = 1, devices: int = 1
) -> None:
    """Runs to the end; every process must exit with 0."""
    codes = [p.wait(timeout=300) for p in start(workdir, overrides, processes, devices)]
    assert codes == [0] * processes, harness.messages(workdir)


# ---- Agreement of layouts ----


def losses(workdir: Path) -> dict[int, float]:
    """Returns {step: training loss}."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def largest_difference(a: dict[int, float], b: dict[int, float]) -> float:
    """Returns the largest relative difference of two runs' losses at the same step."""
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) / abs(a[step]) for step in a)


def digest(workdir: Path) -> str:
    """Returns the SHA-256 of metrics.jsonl."""
    return hashlib.sha256((workdir / "metrics.jsonl").read_bytes()).hexdigest()


def workdir_of(folder: Path, kind: str, layout: Layout, repeat: int = 0) -> Path:
    """Returns the workdir of a run of `agreement`."""
    return folder / f"{kind}_{layout[0]}x{layout[1]}_{repeat}"


def agreement(
    folder: Path, steps: int, layouts: Sequence[tuple[str, Layout]], repeats: int = 2
) -> list[tuple[int, int, str, float, bool]]:
    """Runs on several layouts.

    Args:
      folder: of the workdirs.
      steps: of each run.
      layouts: (kind, layout) of each.
      repeats: of each run.

    Returns:
      For each (processes, devices, kind, largest difference to the first one, whether the repeats
      are equal bit for bit).
    """
    rows = []
    for kind, layout in layouts:
        workdirs = [workdir_of(folder, kind, layout, i) for i in range(repeats)]
        for workdir in workdirs:
            finish(workdir, settings(kind, steps), *layout)
        first = losses(workdir_of(folder, *layouts[0]))
        difference = largest_difference(first, losses(workdirs[0]))
        rows.append((*layout, kind, difference, len({digest(w) for w in workdirs}) == 1))
    return rows


def moved(folder: Path, steps: int, kind: str, old: Layout, new: Layout) -> float:
    """Runs the second half of a run of `agreement` again, on another layout.

    Returns:
      The largest difference to the losses on the old layout.
    """
    complete = workdir_of(folder, kind, old)
    workdir = folder / f"{complete.name}_on_{new[0]}x{new[1]}"
    shutil.copytree(complete, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(steps))
    (workdir / "report.json").unlink()
    finish(workdir, settings(kind, steps), *new)
    assert harness.resumed_at(workdir) == steps // 2
    return largest_difference(losses(complete), losses(workdir))


# ---- One of two processes is stopped or killed ----


def signalled(
    workdir: Path, overrides: harness.Overrides, signum: int
) -> tuple[list[int], list[int], float]:
    """Sends a signal to one of two processes.

    Returns:
      (exit codes, saved steps, seconds until both ended).
    """
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: harness.num_lines(workdir) > 20, processes)
    began = time.time()
    processes[1].send_signal(signum)
    codes = [p.wait(timeout=120) for p in processes]
    return codes, harness.steps_on_disk(workdir), time.time() - began


def one_killed(workdir: Path, overrides: harness.Overrides) -> tuple[int, float]:
    """Kills one of two processes by kill -9 after a save.

    Returns:
      (exit code of the other, seconds until it ended).
    """
    before = harness.steps_on_disk(workdir)
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: harness.steps_on_disk(workdir) > before, processes)
    began = time.time()
    processes[1].kill()
    return processes[0].wait(timeout=120), time.time() - began


def killed_and_resumed(folder: Path, kind: str, steps: int) -> tuple[int, float, bool]:
    """Starts both of two processes again after one was killed by kill -9.

    Returns:
      (exit code of the other, seconds until it ended, whether the end is that of an uninterrupted
      run).
    """
    overrides = often_saved(kind, steps)
    uninterrupted, workdir = folder / f"{kind}_uninterrupted", folder / f"{kind}_killed"
    finish(uninterrupted, overrides, 2, 2)
    code, seconds = one_killed(workdir, overrides)
    finish(workdir, overrides, 2, 2)
    same = harness.end_of(workdir, overrides) == harness.end_of(uninterrupted, overrides)
    return code, seconds, same


def _wait_for(workdir: Path, ready: Callable[[], bool], processes: list[subprocess.Popen]) -> None:
    while not ready():
        assert all(p.poll() is None for p in processes), harness.messages(workdir)
        time.sleep(0.02)


# ---- The suite ----


def main(argv: list[str]) -> None:
    """Runs everything and prints the results; exits with 1 if something is wrong."""
    del argv
    logging.set_verbosity(logging.ERROR)
    steps = STEPS.value
    moves = (((2, 2), (1, 1)), ((1, 1), (2, 2)), ((1, 8), (2, 2)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = agreement(folder, steps, [(k, layout) for layout in LAYOUTS for k in KINDS])
        _print_agreement(rows)
        differences = {
            f"{kind}: first half on {old}, second on {new}": moved(folder, steps, kind, old, new)
            for kind in KINDS
            for old, new in moves
        }
        print(json.dumps(differences, indent=1))
        stops = {
            kind: signalled(folder / f"{kind}_stopped", endless(kind), signal.SIGTERM)
            for kind in KINDS
        }
        kills = {kind: killed_and_resumed(folder, kind, 10 * steps) for kind in KINDS}
    for kind, (codes, saved, seconds) in stops.items():
        print(f"{kind}: SIGTERM to one of two: exit codes {codes}, saved {saved}, {seconds:.1f} s")
    for kind, (code, seconds, same) in kills.items():
        print(
            f"{kind}: kill -9 of one of two: the other exits {code} after {seconds:.1f} s; "
            f"started again it ends bit-identical: {same}"
        )
    agrees = all(difference < CLOSE and same for *_, difference, same in rows)
    moves_agree = all(difference < CLOSE for difference in differences.values())
    stopped = all(codes == [75, 75] and len(saved) == 1 for codes, saved, _ in stops.values())
    in_time = HEARTBEAT_SECONDS + 10
    survived = all(code != 0 and s < in_time and same for code, s, same in kills.values())
    sys.exit(0 if agrees and moves_agree and stopped and survived else 1)


def _print_agreement(rows):
    shown = [(p, d, kind, f"{far:.1e}", "yes" if same else "NO") for p, d, kind, far, same in rows]
    header = ("processes", "devices each", "kind", "largest difference", "repeat is bit-identical")
    print(harness.table(shown, header), flush=True)


if __name__ == "__main__":
    run_main(main)
