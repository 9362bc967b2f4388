"""One run on any number of devices and processes: do the numbers agree, does nothing get lost?

python -m experiments.faults.layouts [--steps=100]
"""

import hashlib
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from absl import flags, logging

from experiments.command import run_main
from experiments.faults import harness
from genjax.train.logs import read_metrics

STEPS = flags.DEFINE_integer("steps", 100, "Steps of each run.")

HEARTBEAT_SECONDS = 10

# Relative difference of two losses that counts as agreement: rounding, which training amplifies.
CLOSE = 1e-4

# (processes, virtual devices of each).
LAYOUTS = ((1, 1), (1, 8), (2, 2))
KINDS = ("jit", "pmap", "fsdp")


def settings(kind, steps, **more):
    """A run with one checkpoint half way, from which `moved` goes on."""
    return {
        "parallel": kind,
        "num_train_steps": steps,
        "eval_every_steps": 0,
        "sample_every_steps": 0,
        "checkpoint_every_steps": steps // 2,
        "checkpoint.keep_last": 2,
        "batch_size": 16,
        "optim.accumulate_steps": 1,
        "model.encoder_hidden": 16,  # a layer large enough for fsdp to cut
        **more,
    }


def often_saved(kind, steps):
    """A run that something interrupts; its length is not in its program."""
    more = {"optim.schedule": "constant", "checkpoint_every_steps": 10, "requeue_exit_code": 75}
    return settings(kind, steps, **more)


def endless(kind):
    """The same, which only a signal ends and saves."""
    return often_saved(kind, 10**6) | {"checkpoint_every_steps": 0}


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


def workdir_of(folder, kind, layout, repeat=0):
    return folder / f"{kind}_{layout[0]}x{layout[1]}_{repeat}"


def agreement(folder, steps, layouts, repeats=2):
    """Rows: layout, kind, largest relative difference to the first one, repeats are equal.

    `layouts`: [(kind, (processes, devices)), ...].
    """
    rows = []
    for kind, layout in layouts:
        names = [workdir_of(folder, kind, layout, i) for i in range(repeats)]
        for name in names:
            finish(name, settings(kind, steps), *layout)
        far = furthest(losses(workdir_of(folder, *layouts[0])), losses(names[0]))
        rows.append((*layout, kind, far, len({digest(name) for name in names}) == 1))
    return rows


def moved(folder, steps, kind, there, back):
    """The second half of a run of `agreement` once more, on another layout.

    Returns:
      The furthest difference to what it was there.
    """
    whole = workdir_of(folder, kind, there)
    workdir = folder / f"{whole.name}_on_{back[0]}x{back[1]}"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(steps))
    (workdir / "report.json").unlink()
    finish(workdir, settings(kind, steps), *back)
    assert harness.resumed_at(workdir) == steps // 2
    return furthest(losses(whole), losses(workdir))


def signalled(workdir, overrides, signum):
    """One of two processes gets a signal; returns (exit codes, saved steps, seconds)."""
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: harness.last_line(workdir) > 20, processes)
    began = time.time()
    processes[1].send_signal(signum)
    codes = [p.wait(timeout=120) for p in processes]
    return codes, harness.steps_on_disk(workdir), time.time() - began


def one_killed(workdir, overrides):
    """One of two processes is killed -9 after a save; returns (exit code of the other, seconds)."""
    before = harness.steps_on_disk(workdir)
    processes = start(workdir, overrides, 2, 2)
    _wait_for(workdir, lambda: harness.steps_on_disk(workdir) > before, processes)
    began = time.time()
    processes[1].kill()
    return processes[0].wait(timeout=120), time.time() - began


def killed_and_resumed(folder, kind, steps):
    """Both of two start again after one was killed -9.

    Returns:
      (exit code of the other, seconds it took to end, whether the end is that of a whole run).
    """
    overrides, whole, workdir = (
        often_saved(kind, steps),
        folder / f"{kind}_unkilled",
        folder / f"{kind}_killed",
    )
    finish(whole, overrides, 2, 2)
    code, seconds = one_killed(workdir, overrides)
    finish(workdir, overrides, 2, 2)
    same = harness.end_of(workdir, overrides) == harness.end_of(whole, overrides)
    return code, seconds, same


def _wait_for(workdir, ready, processes):
    while not ready():
        assert all(p.poll() is None for p in processes), harness.messages(workdir)
        time.sleep(0.02)


def main(_):
    logging.set_verbosity(logging.ERROR)
    steps = STEPS.value
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = agreement(folder, steps, [(k, layout) for layout in LAYOUTS for k in KINDS])
        shown = [
            (p, d, kind, f"{far:.1e}", "yes" if same else "NO") for p, d, kind, far, same in rows
        ]
        header = ("processes", "devices each", "kind", "furthest loss", "repeat is bit-identical")
        print(harness.table(shown, header), flush=True)
        found = {
            f"{kind}: first half on {there}, second on {back}": moved(
                folder, steps, kind, there, back
            )
            for kind in KINDS
            for there, back in (((2, 2), (1, 1)), ((1, 1), (2, 2)), ((1, 8), (2, 2)))
        }
        stops = {
            kind: signalled(folder / f"{kind}_asked", endless(kind), signal.SIGTERM)
            for kind in KINDS
        }
        kills = {kind: killed_and_resumed(folder, kind, 10 * steps) for kind in KINDS}
    print(json.dumps(found, indent=1))
    for kind, (codes, saved, seconds) in stops.items():
        print(f"{kind}: SIGTERM to one of two: exit codes {codes}, saved {saved}, {seconds:.1f} s")
    for kind, (code, seconds, same) in kills.items():
        print(
            f"{kind}: kill -9 of one of two: the other exits {code} after {seconds:.1f} s; "
            f"started again it ends bit-identical: {same}"
        )
    right = (
        all(far < CLOSE and same for *_, far, same in rows)
        and all(far < CLOSE for far in found.values())
        and all(codes == [75, 75] and len(saved) == 1 for codes, saved, _ in stops.values())
        and all(
            code != 0 and seconds < HEARTBEAT_SECONDS + 10 and same
            for code, seconds, same in kills.values()
        )
    )
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    run_main(main)
