"""Records of a run: metrics.jsonl, TensorBoard events, env.txt, tables, progress, traces."""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tqdm import tqdm

from genjax.errors import RunError
from genjax.files import write_text
from genjax.messages import Surviving, write_line
from genjax.typing import Params, UInt8

# --- Metrics --------------------------------------------------------------------------------------


class MetricLog:
    """metrics.jsonl (one JSON object per line) and TensorBoard events.

    The file contains only what the run computes, no times: an interrupted and resumed run writes
    the same bytes as one that was not interrupted. Lines that cannot be written (a full disk) are
    kept in memory and tried again with the next one.

    Attributes:
      path: of metrics.jsonl.
    """

    def __init__(self, workdir: str | Path, step: int, warn: Callable[[str], Any] = print) -> None:
        """Opens the logs of a run that starts or resumes at `step`.

        Args:
          workdir: the folder of the run.
          step: lines of later steps, from a run that died after its last checkpoint, are deleted.
          warn: called with one line about each problem.
        """
        self.path, self._warn = Path(workdir) / "metrics.jsonl", warn
        lines, damaged = _read_lines(self.path)
        if damaged:
            copy = self.path.with_name(f"{self.path.name}.damaged")
            shutil.copyfile(self.path, copy)
            warn(f"{damaged} lines of {self.path} cannot be read and are left out; see {copy}")
        kept = [line for line in lines if line["step"] <= step]
        write_text(self.path, "".join(map(_json_line, kept)))
        self._file = open(self.path, "r+b", buffering=0)
        self._size, self._unwritten = self.path.stat().st_size, b""
        self._events = _Events(Path(workdir) / "tensorboard", step + 1, warn)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one line, {"step": step, **metrics}, with metrics {name: number}."""
        self._unwritten += _json_line({"step": step, **metrics}).encode()
        self.flush()
        self.write_events(step, metrics)

    def flush(self) -> bool:
        """Writes all pending lines; returns whether that succeeded."""
        failed_before = self._unwritten.count(b"\n") > 1
        try:
            self._file.truncate(self._size)  # removes what a failed attempt may have written
            self._file.seek(self._size)
            while self._unwritten:
                done = self._file.write(self._unwritten)
                self._size, self._unwritten = self._size + done, self._unwritten[done:]
        except OSError as error:
            if not failed_before:
                self._warn(f"could not write {self.path}: {error}; its lines are kept until it can")
        return not self._unwritten

    def write_events(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes metrics to TensorBoard only, such as throughput, which differs between runs."""
        for name, value in metrics.items():
            self._events.write(step, summary.scalar(name, value))

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """Writes an image to TensorBoard."""
        self._events.write(step, summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Writes all pending lines and closes the files.

        Raises:
          RunError: there are lines that could not be written.
        """
        written = self.flush()
        self._file.close()
        self._events.close()
        if not written:
            raise RunError(
                f"lines of {self.path} could not be written; make room: the same command goes on "
                "from the newest checkpoint"
            )


class _Events:
    """TensorBoard events, written immediately and in this thread.

    The thread of `SummaryWriter` dies of a full disk and then blocks the run. Here a failure ends
    the events, not the run.
    """

    def __init__(self, folder: Path, first_step: int, warn: Callable[[str], Any]) -> None:
        self._folder, self._warn, self._writer = folder, warn, None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._failed(error)
        # TensorBoard then hides events of later steps, from a run that died.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=first_step, session_log=start))

    def write(self, step: int, value: Any) -> None:
        """Writes a summary, a protocol buffer of tensorboardX."""
        self._write(event_pb2.Event(step=step, summary=value))

    def _write(self, event: Any) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self._writer = None
        self._warn(f"could not write to {self._folder}: {error}; no more TensorBoard events")

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


class NoLog:
    """A `MetricLog` that discards everything, for processes that are not the main one."""

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Does nothing."""

    write_events = write

    def flush(self) -> bool:
        """Returns True."""
        return True

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl, leaving out damaged ones.

    Numbers that are not finite are stored as null, because JSON has no others, and read as NaN.
    """
    return _read_lines(path)[0]


def _read_lines(path: str | Path) -> tuple[list[dict[str, Any]], int]:
    """Returns (lines, number of damaged lines).

    A last line without a newline, which a kill has cut short, does not count as damaged.
    """
    lines, damaged = [], 0
    text = Path(path).read_text(errors="replace") if Path(path).exists() else ""
    for line in text.splitlines(keepends=True):
        try:
            values = json.loads(line)
            if not isinstance(values["step"], int):
                raise TypeError
            lines.append({k: math.nan if v is None else v for k, v in values.items()})
        except (ValueError, TypeError, KeyError):
            damaged += line.endswith("\n")
    return lines, damaged


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps({k: v if math.isfinite(v) else None for k, v in values.items()}) + "\n"


# --- Environment and parameters -------------------------------------------------------------------


def environment(argv: Sequence[str]) -> str:
    """Describes what a run runs on: command, code, versions, devices."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
        ).stdout.strip()
    except OSError:  # no git
        commit = ""
    devices = jax.devices()
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections")
    lines = [
        f"date      {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"command   {' '.join(argv)}",
        f"commit    {commit or 'unknown'}",
        f"host      {platform.node()} ({os.cpu_count()} cpus, {platform.platform()})",
        f"devices   {len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        f"processes {jax.process_count()}",
        f"python    {platform.python_version()}",
        *(f"{name:9s} {importlib.metadata.version(name)}" for name in packages),
        f"XLA_FLAGS {os.environ.get('XLA_FLAGS', '')}",
    ]
    return "\n".join(lines) + "\n"


def parameter_table(params: Params) -> str:
    """Lists all parameters, one per line (path, shape, count), and their total."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    rows = [(jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in flat]
    width = max([len(name) for name, _ in rows] + [5])
    lines = [f"{name:{width}s}  {str(x.shape):20s} {x.size:>12,d}" for name, x in rows]
    total = f"{'total':{width}s}  {'':20s} {count_parameters(params):>12,d}"
    return "\n".join([*lines, total])


def count_parameters(params: Params) -> int:
    """Returns the total size of all parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


# --- Progress and profiling -----------------------------------------------------------------------


class Progress:
    """A progress bar on a terminal, or a line every ten seconds: images/s and remaining time."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, start: int, stop: int, batch_size: int, quiet: bool = False) -> None:
        """Starts at a step.

        Args:
          start: steps made so far.
          stop: steps at the end of training.
          batch_size: images per step.
          quiet: whether to print nothing.
        """
        self._batch_size = batch_size
        self._timed_from = self._step = start
        self._stop = stop
        self._seconds = 0.0  # of training alone
        self._resumed = self._printed = time.perf_counter()
        stream = Surviving(sys.stderr)
        hidden = quiet or not stream.isatty()
        self._bar = tqdm(total=stop, initial=start, unit="step", disable=hidden, file=stream)
        self._quiet = quiet
        self._loss = ""

    @property
    def images_per_second(self) -> float:
        """Training speed since `restart`, without evaluation and sampling."""
        seconds = self._seconds + time.perf_counter() - self._resumed
        return (self._step - self._timed_from) * self._batch_size / max(seconds, 1e-9)

    def restart(self, step: int) -> None:
        """Restarts the clock at `step`, so that compilation does not count."""
        self._timed_from, self._seconds, self._resumed = step, 0.0, time.perf_counter()
        self._step = max(self._step, step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock for the length of a block."""
        self._seconds += time.perf_counter() - self._resumed
        try:
            yield
        finally:
            self._resumed = time.perf_counter()

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Shows that `step` steps are done, and the loss of the newest metrics."""
        self._bar.update(step - self._step)
        self._step = step
        rate = self.images_per_second
        if metrics:
            self._loss = f"loss {metrics['train/loss']:.5g}"
            speed = [f"{rate:,.0f} images/s"] if step > self._timed_from else []
            self._bar.set_postfix_str(", ".join([*speed, self._loss]))
        now = time.perf_counter()
        if (
            self._bar.disable
            and not self._quiet
            and (now - self._printed > self.SECONDS_BETWEEN_LINES or step == self._stop)
        ):
            self._printed = now
            parts = [f"step {step}/{self._stop}"]
            if step > self._timed_from:  # else no step has been timed yet
                seconds = (self._stop - step) * self._batch_size / rate
                parts += [f"{rate:,.0f} images/s", f"{seconds:.0f} s left"]
            write_line("  ".join([*parts, self._loss]).rstrip())

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()


class Profiler:
    """A `jax.profiler` trace of some steps, for TensorBoard or Perfetto."""

    def __init__(self, folder: str | Path, start_step: int, num_steps: int) -> None:
        """Plans a trace.

        Args:
          folder: the folder of the trace.
          start_step: steps of this launch before the trace, including compilation.
          num_steps: steps to trace, 0 for none.
        """
        self._folder, self._first, self._last = folder, start_step, start_step + num_steps
        self._tracing = False

    def update(self, step: int) -> None:
        """Starts or stops the trace; to be called before step `step` of this launch."""
        if not self._tracing and self._first <= step < self._last:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        elif self._tracing and step >= self._last:
            self.close()

    def close(self) -> None:
        """Stops the trace if one is running."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
