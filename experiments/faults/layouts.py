"""One run on any number of devices and processes: do the numbers agree, does nothing get lost?

python -m experiments.faults.layouts [--steps=100]
"""

import hashlib
import json
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags, logging

from experiments.faults import harness
from genjax.train.logs import read_metrics

STEPS = flags.DEFINE_integer("steps", 100, "Steps of each run.")

HEARTBEAT_SECONDS = 10

# (processes, virtual devices of each).
LAYOUTS = ((1, 1), (1, 8), (2, 2))
KINDS = ("jit", "pmap", "fsdp")


def settings(kind, steps, **more):
    return {
        "parallel": kind,
        "num_train_steps": steps,
        "eval_every_steps": 0,
        "sample_every_steps": 0,
        "checkpoint_every_steps": 0,
        "batch_size": 16,
        "optim.accumulate_steps": 1,
        "model.encoder_hidden": 16,  # a layer large enough for fsdp to cut
        **more,
    }


def start(workdir, overrides, processes=1, devices=1, heartbeat_seconds=HEARTBEAT_SECONDS):
    """Starts all processes of a run."""
    if processes == 1:
        return [harness.start(workdir, overrides, devices=devices)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = [f"--coordinator=localhost:{port}", f"--num_processes={processes}"]
    shared.append(f"--heartbeat_seconds={heartbeat_seconds}")
    return [
        harness.start(workdir, overrides, flags=[*shared, f"--process_id={i}"], devices=devices)
        for i in range(processes)
    ]


def finish(workdir, overrides, processes=1, devices=1):
    codes = [p.wait(timeout=300) for p in start(workdir, overrides, processes, devices)]
    assert codes == [0] * processes, harness.messages(workdir)


def losses(workdir):
    return {
        x["step"]: x["train/loss"]
        for x in read_metrics(workdir / "metrics.jsonl")
        if "train/loss" in x
    }


def furthest(a, b):
    """The largest relative difference of two runs' losses."""
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) / abs(a[step]) for step in a)


def digest(workdir):
    return hashlib.sha256((workdir / "metrics.jsonl").read_bytes()).hexdigest()


def agreement(folder, steps, layouts=LAYOUTS, kinds=KINDS, repeats=2):
    """Rows: layout, kind, largest relative difference to jit on one device, repeats are equal."""
    rows, reference = [], None
    for processes, devices in layouts:
        for kind in kinds:
            names = [folder / f"{kind}_{processes}x{devices}_{i}" for i in range(repeats)]
            for name in names:
                finish(name, settings(kind, steps), processes, devices)
            reference = reference or losses(names[0])
            same = len({digest(name) for name in names}) == 1
            rows.append((processes, devices, kind, furthest(reference, losses(names[0])), same))
    return rows


def moved(folder, steps, kind, there, back):
    """Half a run on one layout, half on another, against a whole one: the furthest difference."""
    finish(folder / f"{kind}_whole", settings(kind, steps), *there)
    workdir = folder / f"{kind}_{there}_{back}".replace(" ", "")
    # What is stopped in the middle, not what was meant to be shorter: the schedule looks ahead.
    half = settings(kind, steps, checkpoint_every_steps=steps // 2)
    for process in start(workdir, half, *there):
        process.wait(timeout=300)
    later = workdir / "checkpoints" / str(steps)
    later.rename(workdir / "checkpoints" / f"{steps}.aside")
    (workdir / "report.json").unlink()
    finish(workdir, half, *back)
    assert harness.resumed_at(workdir) == steps // 2
    return furthest(losses(folder / f"{kind}_whole"), losses(workdir))


def signalled(folder, kind, signum):
    """One of two processes gets a signal; returns (exit codes, saved steps, seconds)."""
    workdir = folder / f"{kind}_{signum.name}"
    overrides = settings(kind, 10**6, requeue_exit_code=75)
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: harness.last_line(workdir) > 20, processes)
    began = time.time()
    processes[1].send_signal(signum)
    codes = [p.wait(timeout=120) for p in processes]
    return codes, harness.steps_on_disk(workdir), time.time() - began


def one_killed(folder, steps, kind):
    """One of two processes is killed -9; both start again.

    Returns:
      (exit code of the other, seconds it took to end, whether the end is that of a whole run).
    """
    overrides = settings(kind, steps, checkpoint_every_steps=10)
    finish(folder / f"{kind}_unkilled", overrides, 2, 2)
    workdir = folder / f"{kind}_killed"
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: bool(harness.steps_on_disk(workdir)), processes)
    began = time.time()
    processes[1].kill()
    code = processes[0].wait(timeout=120)
    seconds = time.time() - began
    finish(workdir, overrides, 2, 2)
    expected = harness.end_of(folder / f"{kind}_unkilled", overrides)
    return code, seconds, harness.end_of(workdir, overrides) == expected


def _wait_for(workdir, ready, processes):
    while not ready():
        assert all(p.poll() is None for p in processes), harness.messages(workdir)
        time.sleep(0.02)


def main(_):
    logging.set_verbosity(logging.ERROR)
    steps = STEPS.value
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = agreement(folder, steps)
        shown = [
            (p, d, kind, f"{far:.1e}", "yes" if same else "NO") for p, d, kind, far, same in rows
        ]
        header = ("processes", "devices each", "kind", "furthest loss", "repeat is bit-identical")
        print(harness.table(shown, header), flush=True)
        found = {}
        (folder / "back").mkdir()
        for kind in KINDS:
            found[f"{kind}: saved by 2 x 2, restored by 1 x 1"] = moved(
                folder, steps, kind, (2, 2), (1, 1)
            )
            found[f"{kind}: saved by 1 x 1, restored by 2 x 2"] = moved(
                folder / "back", steps, kind, (1, 1), (2, 2)
            )
        stops = {kind: signalled(folder, kind, signal.SIGTERM) for kind in KINDS}
        kills = {kind: one_killed(folder, 10 * steps, kind) for kind in KINDS}
    print(json.dumps(found, indent=1))
    for kind, (codes, saved, seconds) in stops.items():
        print(f"{kind}: SIGTERM to one of two: exit codes {codes}, saved {saved}, {seconds:.1f} s")
    for kind, (code, seconds, same) in kills.items():
        print(
            f"{kind}: kill -9 of one of two: the other exits {code} after {seconds:.1f} s; "
            f"started again it ends bit-identical: {same}"
        )
    right = (
        all(far < 1e-5 and same for *_, far, same in rows)
        and all(far < 1e-5 for far in found.values())
        and all(codes == [75, 75] and len(saved) == 1 for codes, saved, _ in stops.values())
        and all(
            code != 0 and seconds < HEARTBEAT_SECONDS + 10 and same
            for code, seconds, same in kills.values()
        )
    )
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    app.run(main)
