"""Troubles that people report of such tools: with their data, their paths and their terminals.

Data: folders with what systems and tools leave behind, splits and classes that one would have to
guess, names that are not Unicode, datasets with a folder beside them. Each has to be read as a
person would read it, or refused in one line. Streams: a small run whose stderr fails in every way;
it has to end as if nobody had listened, with everything saved.

python -m faults.troubles        exit code 0 if every outcome is the expected one
"""

import contextlib
import dataclasses
import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from absl import flags
from PIL import Image

from faults import harness
from genjax.data import builders
from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.files import cache_root
from genjax.runner.command import run_main

ONLY = flags.DEFINE_enum("only", "all", ["all", "data", "streams"], "Which troubles.")

SHAPE = (8, 8, 1)
SIDE, PER_CLASS = 8, 20
STEPS, SAVE_EVERY, REQUEUE = 60, 10, 75
SECONDS = 180  # no run of this size takes longer


# ---- Data ----


@dataclasses.dataclass(frozen=True)
class Data:
    """A folder of pictures, and what has to come of it.

    Attributes:
      pictures: names of PNG files.
      others: names of further files, which hold no picture.
      classes: their names; None where the folder has to be refused.
      says: a part of the message, a regular expression.
      count: pictures for training; None for any.
    """

    pictures: tuple[str, ...]
    others: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    says: str = ""
    count: int | None = None


def in_classes(*folders: str, count: int = 4) -> tuple[str, ...]:
    """Returns names of pictures in folders."""
    return tuple(f"{folder}/{i}.png" for folder in folders for i in range(count))


AB = in_classes("a", "b")
SPLIT = in_classes("train/a", "train/b", "test/a", "test/b")
NOT_UNICODE = os.fsdecode(b"caf\xe9")

DATA = {
    "train and val": Data(in_classes("train/a", "train/b", "val/a", "val/b"), (), ("a", "b")),
    "Training_Set, Test_Set": Data(
        in_classes("Training_Set/a", "Training_Set/b", "Test_Set/a"), (), ("a", "b"), count=8
    ),
    "train alone": Data(in_classes("train/a", "train/b"), says="no split test"),
    "test beside classes": Data((*AB, "test/0.png"), says="beside a, b"),
    "trains, buses, cars": Data(in_classes("bus", "car", "train"), (), ("bus", "car", "train")),
    "notebook checkpoints": Data(AB, ("a/.ipynb_checkpoints/0-checkpoint.png",), ("a", "b"), "1 h"),
    "zip of a Mac": Data(
        AB, ("__MACOSX/a/._0.png", "a/._0.png", ".DS_Store"), ("a", "b"), "hidden"
    ),
    "a NAS's thumbnails": Data(AB, ("@eaDir/0.png", "a/@eaDir/0.png/S.jpg"), ("a", "b"), "hidden"),
    "a recycle bin": Data(AB, ("$RECYCLE.BIN/0.png", "lost+found/1.png"), ("a", "b"), "2 hidden"),
    "annotations": Data(SPLIT, ("annotations/0.xml", "README"), ("a", "b"), "out: 2 files", 8),
    "flat beside classes": Data((*AB, "0.png"), says="beside folders"),
    "an empty class": Data(AB, ("c/.keep",), says="c would be a class, but holds nothing"),
    "a class of HEIC": Data(AB, ("c/0.HEIC", "c/1.HEIC"), says=r"2 \.heic"),
    "some HEIC": Data(AB, ("a/x.HEIC", "b/y.avif"), ("a", "b"), r"1 \.avif, 1 \.heic"),
    "a class for testing": Data((*SPLIT, "test/c/0.png"), says="class 'c'"),
    "splits in classes": Data(in_classes("a/train", "a/test", "b/train"), says="above the classes"),
    "numbers": Data(in_classes("1", "2", "10"), (), ("1", "2", "10")),
    "formulas": Data(in_classes("a$b$", "$x_{"), (), ("$x_{", "a$b$")),
    "not Unicode": Data(in_classes(NOT_UNICODE, "b"), (), ("b", r"caf\xe9")),
}


def make(root: Path, data: Data) -> None:
    """Makes the folder of a trouble."""
    for i, name in enumerate((*data.pictures, *data.others)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in data.others:
            path.write_bytes(b"no picture")
        else:
            Image.new("L", (SIDE, SIDE), i).save(path)


def data_outcome(name: str, root: Path) -> tuple[str, bool]:
    """Reads both splits of a trouble.

    Args:
      name: a key of `DATA`.
      root: an empty folder.

    Returns:
      (what came of it, whether that is right).
    """
    data = DATA[name]
    make(root, data)
    try:
        train, test = (find_source(f"folder:{root}", split) for split in ("train", "test"))
        images = load_dataset(train, SHAPE).images
    except UserError as error:
        right = data.classes is None and re.search(data.says, str(error)) and "\n" not in str(error)
        return f"refused: {error}", bool(right)
    together = set(train.paths) & set(test.paths)
    right = train.class_names == test.class_names == data.classes and not together
    right &= data.count in (None, len(images)) and bool(re.search(data.says, train.summary))
    return train.summary, right


def other_outcomes(root: Path) -> Iterator[tuple[str, str, bool]]:
    """Yields (trouble, what came of it, whether that is right) of data that are no folders."""
    builders.prepare("digits", root)
    version = root / "digits" / "1.0.0"
    for beside in ("1.0.0.old", "2.0.0-copy"):
        shutil.copytree(version, version.with_name(beside))
    newer = version.with_name("1.1.0")
    shutil.copytree(version, newer)
    (newer / "dataset_info.json").write_text("{")
    found = find_source("digits", "test", str(root)).version
    yield "folders beside a dataset, a damaged newer one", f"version {found}", found == "1.0.0"
    pointer = root / "a.npz"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for name, says in {
        f"npz:{pointer}": "git lfs pull",
        "folder:gs://bucket/pictures": "not a path on this machine",
        "/data/pictures": "say folder:",
    }.items():
        try:
            find_source(name, "train")
            yield name, "READ", False
        except UserError as error:
            yield name.replace(str(root), ""), f"refused: {error}", says in str(error)


# ---- Streams ----


def command(data: Path, workdir: Path) -> list[str]:
    """Returns the command of a small run on a folder of pictures."""
    overrides = {
        "data.name": f"folder:{data}",
        "data.image_shape": SHAPE,
        "batch_size": 8,
        "num_train_steps": STEPS,
        "log_every_steps": 1,
        "eval_every_steps": 20,
        "checkpoint_every_steps": SAVE_EVERY,
        "requeue_exit_code": REQUEUE,
    }
    start = [sys.executable, "launch.py", "--config=configs/cnn_digits.py:smoke"]
    settings = [f"--config.{key}={value}" for key, value in overrides.items()]
    return [*start, f"--workdir={workdir}", *settings]


def started(arguments: list[str], **options) -> subprocess.Popen:
    """Starts a run; `options` are those of Popen."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "GENJAX_CACHE": str(cache_root())}
    return subprocess.Popen(arguments, cwd=harness.ROOT, env=environment, **options)


def reader_dies(arguments: list[str], workdir: Path) -> int:
    """Closes the pipe after the first line, as `| head -1` does."""
    process = started(arguments, stderr=subprocess.PIPE)
    process.stderr.readline()
    process.stderr.close()
    return process.wait(SECONDS)


def reader_stops(arguments: list[str], workdir: Path) -> int:
    """Never reads from a pipe of one page."""
    process = started(arguments, stderr=subprocess.PIPE)
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    return process.wait(SECONDS)


def disk_is_full(arguments: list[str], workdir: Path) -> int:
    """Writes messages to a full disk."""
    with open("/dev/full", "w") as full:
        return started(arguments, stderr=full, stdout=full).wait(SECONDS)


def closed(arguments: list[str], workdir: Path) -> int:
    """Starts without stdin, stdout and stderr."""
    script = 'exec "$@" <&- >&- 2>&-'
    return started(["bash", "-c", script, "bash", *arguments]).wait(SECONDS)


def terminal_closes(arguments: list[str], workdir: Path) -> int:
    """Closes the terminal of a run once it has saved."""
    master, slave = pty.openpty()
    own_terminal = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    streams = dict(stdin=slave, stdout=slave, stderr=slave)
    steps = arguments.index(f"--config.num_train_steps={STEPS}")
    endless = [*arguments[:steps], "--config.num_train_steps=1000000", *arguments[steps + 1 :]]
    process = started(endless, start_new_session=True, preexec_fn=own_terminal, **streams)
    os.close(slave)
    os.set_blocking(master, False)
    until = time.monotonic() + SECONDS
    while not harness.steps_on_disk(workdir) and time.monotonic() < until:
        with contextlib.suppress(BlockingIOError):
            os.read(master, 2**16)
        time.sleep(0.05)
    os.close(master)
    return process.wait(SECONDS)


def ascii_only(arguments: list[str], workdir: Path) -> int:
    """Runs where neither stderr nor the locale knows more than ASCII."""
    plain = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    with mock.patch.dict(os.environ, plain):
        return started(arguments, stderr=subprocess.DEVNULL).wait(SECONDS)


STREAMS: dict[str, tuple[Callable[[list[str], Path], int], int]] = {
    "the reader dies": (reader_dies, 0),
    "the reader stops reading": (reader_stops, 0),
    "a full disk under the log": (disk_is_full, 0),
    "closed before the start": (closed, 0),
    "the terminal closes": (terminal_closes, REQUEUE),
    "ASCII alone": (ascii_only, 0),
}


def stream_outcome(name: str, folder: Path) -> tuple[str, bool]:
    """Runs a small run with one of `STREAMS`.

    Args:
      name: its key.
      folder: an empty one.

    Returns:
      (exit code and newest checkpoint, whether they are right).
    """
    act, expected = STREAMS[name]
    data = Data(in_classes("a$b$", NOT_UNICODE, count=PER_CLASS))
    make(folder / NOT_UNICODE, data)
    workdir = folder / "run"
    code = act(command(folder / NOT_UNICODE, workdir), workdir)
    steps = harness.steps_on_disk(workdir)
    complete = STEPS in steps if expected == 0 else bool(steps)
    complete &= expected != 0 or (workdir / "report.json").exists()
    return f"exit code {code}, saved at {steps[-1:]}", code == expected and complete


def main(argv: list[str]) -> None:
    """Prints a table; exits with 1 where an outcome is wrong."""
    del argv
    rows, wrong = [], 0

    def note(trouble: str, result: str, right: bool) -> None:
        nonlocal wrong
        wrong += not right
        rows.append((trouble, result[:100], "" if right else "NOT AS EXPECTED"))

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        if ONLY.value != "streams":
            for i, trouble in enumerate(DATA):
                (folder / f"data_{i}").mkdir()
                note(trouble, *data_outcome(trouble, folder / f"data_{i}"))
            for row in other_outcomes(folder / "tfds"):
                note(*row)
        if ONLY.value != "data":
            stack.callback(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            for i, trouble in enumerate(STREAMS):
                (folder / f"stream_{i}").mkdir()
                note(trouble, *stream_outcome(trouble, folder / f"stream_{i}"))
    print(harness.table(rows, ("trouble", "what came of it", "")))
    print(f"{wrong} of {len(rows)} troubles are not as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
