"""launch.py in a process that kills itself, without warning, at a named point.

python -m faults.victim POINT:N [flags of launch.py]

It dies the N-th time it reaches POINT; with "" as the first argument it is launch.py itself.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from PIL import Image

from genjax.runner import evaluator
from genjax.train import checkpoint, logs
from genjax.train.parallel import Parallel

LAUNCH = Path(__file__).parent.parent / "launch.py"


def die() -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def trap(
    owner: Any,
    name: str,
    count: int,
    instead: Callable[..., Any],
    when: Callable[..., bool] = lambda *args: True,
) -> None:
    """Replaces one call of a function.

    Args:
      owner: a module or class.
      name: of its function.
      count: which call to replace, of those that `when(*args)` is true for.
      instead: called with the function and its arguments.
      when: see `count`.
    """
    fn, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        if when(*args) and next(calls) == count:
            return instead(fn, *args, **kwargs)
        return fn(*args, **kwargs)

    setattr(owner, name, wrapped)


# ---- How to die: `instead` of a trap ----


def before(fn: Callable, *args: Any, **kwargs: Any) -> None:
    """Dies before the call."""
    die()


def after(fn: Callable, *args: Any, **kwargs: Any) -> None:
    """Dies after the call."""
    fn(*args, **kwargs)
    die()


def soon_after(fn: Callable, *args: Any, **kwargs: Any) -> None:
    """Dies 5 ms after the call."""
    fn(*args, **kwargs)
    threading.Timer(0.005, die).start()


def while_compiling(fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """Dies 0.3 s after the call, in the first compilation."""
    jax.config.update("jax_enable_compilation_cache", False)
    threading.Timer(0.3, die).start()
    return fn(*args, **kwargs)


def half_deleted(fn: Callable, path: str | Path, **kwargs: Any) -> None:
    """Deletes half of the files of a folder and dies."""
    files = sorted(p for p in Path(path).rglob("*") if p.is_file())
    for file in files[: len(files) // 2]:
        file.unlink()
    die()


def half_evaluated(fn: Callable, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Yields the first batch and dies."""
    yield next(fn(*args, **kwargs))
    die()


def half_a_line(fn: Callable, log: logs.MetricLog, step: int, metrics: dict[str, float]) -> None:
    """Writes 40 characters of a line and dies."""
    log._file.write(json.dumps({"step": step, **metrics})[:40].encode())
    die()


def half_a_text(fn: Callable, path: Path, text: str) -> None:
    """Writes half of a text and dies."""
    path.write_text(text[: len(text) // 2])
    die()


def half_a_picture(fn: Callable, image: Image.Image, path: Path, **kwargs: Any) -> None:
    """Writes 100 bytes of a picture and dies."""
    fn(image, path, **kwargs)
    path.write_bytes(path.read_bytes()[:100])
    die()


# ---- Which calls count: `when` of a trap ----


def is_commit(source: Any, target: Any, *args: Any) -> bool:
    """Returns whether a rename completes a checkpoint."""
    return "orbax-checkpoint-tmp" in str(source) and Path(target).name.isdecimal()


def has_files(path: Any) -> bool:
    """Returns whether there is a file in a folder."""
    return any(p.is_file() for p in Path(path).rglob("*"))


def is_a_file(image: Image.Image, path: Any) -> bool:
    """Returns whether a picture is saved to a file."""
    return isinstance(path, Path)


def named(word: str) -> Callable[..., bool]:
    """Returns the condition that a path contains a word."""
    return lambda path, *args: word in str(path)


# {point: (owner, name of the function, how to die, which calls count)}
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
    "half an evaluation": (evaluator, "eval_batches", half_evaluated),
    "half a metrics line": (logs.MetricLog, "write", half_a_line),
    "metrics.jsonl half cut back": (Path, "write_text", half_a_text, named("metrics.jsonl")),
    "half a config.json": (Path, "write_text", half_a_text, named("config.json")),
    "half a report.json": (Path, "write_text", half_a_text, named("report.json")),
    "half a picture": (Image.Image, "save", half_a_picture, is_a_file),
}


def main() -> None:
    """Sets the trap and runs launch.py."""
    point, _, count = sys.argv[1].partition(":")
    if point:
        owner, name, instead, *when = POINTS[point]
        trap(owner, name, int(count), instead, *when)
    sys.argv = [str(LAUNCH), *sys.argv[2:]]
    runpy.run_path(str(LAUNCH), run_name="__main__")


if __name__ == "__main__":
    main()
