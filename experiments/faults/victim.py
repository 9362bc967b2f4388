"""launch.py in a process that kills itself, with no warning, at a point one can name.

python -m experiments.faults.victim POINT:N [flags of launch.py]

It dies the N-th time it comes to POINT; "" as the first argument is launch.py as it is.
"""

import functools
import itertools
import json
import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from PIL import Image

from experiments import evaluation
from genjax.train import checkpoint, logs
from genjax.train.parallel import Parallel

LAUNCH = Path(__file__).parent.parent.parent / "launch.py"


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def trap(owner, name, count, instead, when=lambda *args: True):
    """Replaces the count-th call of `owner.name` that `when(*args)` takes by `instead`.

    `instead` is called with the function and its arguments.
    """
    fn, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        if when(*args) and next(calls) == count:
            return instead(fn, *args, **kwargs)
        return fn(*args, **kwargs)

    setattr(owner, name, wrapped)


def before(fn, *args, **kwargs):
    die()


def after(fn, *args, **kwargs):
    fn(*args, **kwargs)
    die()


def soon_after(fn, *args, **kwargs):
    fn(*args, **kwargs)
    threading.Timer(0.005, die).start()


def while_compiling(fn, *args, **kwargs):
    jax.config.update("jax_enable_compilation_cache", False)
    threading.Timer(0.3, die).start()
    return fn(*args, **kwargs)


def half_deleted(fn, path, **kwargs):
    files = sorted(p for p in Path(path).rglob("*") if p.is_file())
    for file in files[: len(files) // 2]:
        file.unlink()
    die()


def half_evaluated(fn, *args, **kwargs):
    yield next(fn(*args, **kwargs))
    die()


def half_a_line(fn, log, step, metrics):
    log._file.write(json.dumps({"step": step, **metrics})[:40].encode())
    die()


def half_a_text(fn, path, text):
    path.write_text(text[: len(text) // 2])
    die()


def half_a_picture(fn, image, path, **kwargs):
    fn(image, path, **kwargs)
    path.write_bytes(path.read_bytes()[:100])
    die()


def is_commit(source, target, *args):
    return "orbax-checkpoint-tmp" in str(source) and Path(target).name.isdecimal()


def has_files(path):
    return any(p.is_file() for p in Path(path).rglob("*"))


def is_a_file(image, path):
    return isinstance(path, Path)


def named(word):
    return lambda path, *args: word in str(path)


# Where to die: (owner, name of the function, how, which calls count).
POINTS = {
    "before a save": (ocp.AsyncCheckpointer, "save", before),
    "arrays being written": (ocp.AsyncCheckpointer, "save", soon_after),
    "between write and commit": (os, "rename", before, is_commit),
    "just after the commit": (os, "rename", after, is_commit),
    "retention, before renaming": (checkpoint, "_move", before),
    "retention, after renaming": (checkpoint, "_move", after),
    "retention, half deleted": (shutil, "rmtree", half_deleted, has_files),
    "first compile": (Parallel, "compile_train_step", while_compiling),
    "restore, before reading": (checkpoint, "_read_state", before),
    "restore, before checking": (checkpoint, "_read_state", after),
    "half an evaluation": (evaluation, "eval_batches", half_evaluated),
    "half a metrics line": (logs.MetricLog, "write", half_a_line),
    "metrics.jsonl half cut back": (Path, "write_text", half_a_text, named("metrics.jsonl")),
    "half a config.json": (Path, "write_text", half_a_text, named("config.json")),
    "half a report.json": (Path, "write_text", half_a_text, named("report.json")),
    "half a picture": (Image.Image, "save", half_a_picture, is_a_file),
}


def main():
    point, _, count = sys.argv[1].partition(":")
    if point:
        owner, name, instead, *when = POINTS[point]
        trap(owner, name, int(count), instead, *when)
    sys.argv = [str(LAUNCH), *sys.argv[2:]]
    runpy.run_path(str(LAUNCH), run_name="__main__")


if __name__ == "__main__":
    main()
