"""What a run tells: metrics.jsonl, TensorBoard events, env.txt, tables, the progress bar."""

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
from pathlib import Path

import jax
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tqdm import tqdm

from genjax.errors import RunError
from genjax.files import write_text


class MetricLog:
    """metrics.jsonl (one JSON object a line) and TensorBoard events.

    The file holds only what the run computes, nothing of the clock: an interrupted and resumed run
    leaves the same bytes as one that was not interrupted. Where a line cannot be written (a full
    disk), it and those after it are kept, and tried again with the next one.

    Args:
      workdir: a folder.
      step: lines of later steps, left by a run that died after its last checkpoint, are dropped.
      warn: called with one line about what could not be written.
    """

    def __init__(self, workdir, step, warn=print):
        self.path, self._warn = Path(workdir) / "metrics.jsonl", warn
        lines, damaged = _read_lines(self.path)
        if damaged:
            whole = self.path.with_name(f"{self.path.name}.damaged")
            shutil.copyfile(self.path, whole)
            warn(f"{damaged} lines of {self.path} cannot be read; as it was, it is now {whole}")
        kept = [line for line in lines if line["step"] <= step]
        write_text(self.path, "".join(map(_json_line, kept)))
        self._file = open(self.path, "r+b", buffering=0)
        self._size, self._unwritten = self.path.stat().st_size, b""
        self._events = _Events(Path(workdir) / "tensorboard", step + 1, warn)

    def write(self, step, metrics):
        """Appends one line: {"step": step, **metrics}, metrics being floats by name."""
        self._unwritten += _json_line({"step": step, **metrics}).encode()
        self.flush()
        self.write_events(step, metrics)

    def flush(self):
        """Writes what is still to be written; returns whether everything is."""
        waited = self._unwritten.count(b"\n") > 1
        try:
            self._file.truncate(self._size)  # what an attempt that failed may have left
            self._file.seek(self._size)
            while self._unwritten:
                done = self._file.write(self._unwritten)
                self._size, self._unwritten = self._size + done, self._unwritten[done:]
        except OSError as error:
            if not waited:
                self._warn(f"could not write {self.path}: {error}; its lines are kept until it can")
        return not self._unwritten

    def write_events(self, step, metrics):
        """Writes to TensorBoard alone: throughput, which no two runs share."""
        for name, value in metrics.items():
            self._events.write(step, summary.scalar(name, value))

    def write_image(self, step, name, image):
        """Shows a uint8 image [H, W, C] in TensorBoard."""
        self._events.write(step, summary.image(name, image, dataformats="HWC"))

    def close(self):
        """Raises RunError if there are lines that could not be written."""
        written = self.flush()
        self._file.close()
        self._events.close()
        if not written:
            raise RunError(
                f"lines of {self.path} could not be written; make room: the same command goes on "
                "from the newest checkpoint"
            )


class _Events:
    """TensorBoard events, written at once and by this thread: `SummaryWriter`'s own thread dies of
    a full disk and then blocks the run. A failure ends the events, not the run."""

    def __init__(self, folder, first_step, warn):
        self._folder, self._warn, self._writer = folder, warn, None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._failed(error)
        # Events of later steps, of a run that died, are not shown.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=first_step, session_log=start))

    def write(self, step, value):
        self._write(event_pb2.Event(step=step, summary=value))

    def _write(self, event):
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error):
        self._writer = None
        self._warn(f"could not write to {self._folder}: {error}; no more TensorBoard events")

    def close(self):
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


class NoLog:
    """A `MetricLog` that keeps nothing, for processes that are not the main one."""

    def write(self, step, metrics):
        pass

    write_events = write

    def flush(self):
        return True

    def write_image(self, step, name, image):
        pass

    def close(self):
        pass


def read_metrics(path):
    """The lines of a metrics.jsonl as dicts; those that cannot be read are left out.

    Numbers that were not finite are written as null, which JSON has, and read as NaN.
    """
    return _read_lines(path)[0]


def _read_lines(path):
    """(lines, how many cannot be read, but for a last one that a kill has cut short)."""
    lines, damaged = [], 0
    text = Path(path).read_text(errors="replace") if Path(path).exists() else ""
    for line in text.splitlines(keepends=True):
        try:
            found = json.loads(line)
            if not isinstance(found["step"], int):
                raise TypeError
            lines.append({k: math.nan if v is None else v for k, v in found.items()})
        except (ValueError, TypeError, KeyError):
            damaged += line.endswith("\n")
    return lines, damaged


def _json_line(values):
    return json.dumps({k: v if math.isfinite(v) else None for k, v in values.items()}) + "\n"


def environment(argv):
    """What a run ran on, as text: command, code, versions, devices."""
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


def parameter_table(params):
    """One line a parameter (path, shape, count) and the total, as text."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    rows = [(jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in flat]
    width = max([len(name) for name, _ in rows] + [5])
    lines = [f"{name:{width}s}  {str(x.shape):20s} {x.size:>12,d}" for name, x in rows]
    total = f"{'total':{width}s}  {'':20s} {count_parameters(params):>12,d}"
    return "\n".join([*lines, total])


def count_parameters(params):
    return sum(x.size for x in jax.tree.leaves(params))


class Progress:
    """A progress bar on a terminal, a line now and then elsewhere; images/s and time left.

    Args:
      start, stop: steps done so far, and in the end.
      batch_size: images per step.
      quiet: say nothing.
    """

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, start, stop, batch_size, quiet=False):
        self._batch_size = batch_size
        self._timed_from = self._step = start
        self._stop = stop
        self._seconds = 0.0  # of training alone
        self._resumed = self._printed = time.perf_counter()
        hidden = quiet or not sys.stderr.isatty()
        self._bar = tqdm(total=stop, initial=start, unit="step", disable=hidden)
        self._quiet = quiet
        self._loss = ""

    @property
    def images_per_second(self):
        """Training speed since `restart`, evaluation and drawing not counted."""
        seconds = self._seconds + time.perf_counter() - self._resumed
        return (self._step - self._timed_from) * self._batch_size / max(seconds, 1e-9)

    def restart(self, step):
        """Starts the clock at `step`: the first step's compilation is not speed."""
        self._timed_from, self._seconds, self._resumed = step, 0.0, time.perf_counter()
        self._step = max(self._step, step)

    @contextlib.contextmanager
    def paused(self):
        """Stops the clock for the length of a block."""
        self._seconds += time.perf_counter() - self._resumed
        try:
            yield
        finally:
            self._resumed = time.perf_counter()

    def update(self, step, metrics=None):
        """Says that `step` steps are done; `metrics` are the newest known."""
        self._bar.update(step - self._step)
        self._step = step
        rate = self.images_per_second
        if metrics:
            self._loss = f"loss {metrics['train/loss']:.5g}"
            self._bar.set_postfix_str(f"{rate:,.0f} images/s, {self._loss}")
        now = time.perf_counter()
        if (
            self._bar.disable
            and not self._quiet
            and (now - self._printed > self.SECONDS_BETWEEN_LINES or step == self._stop)
        ):
            self._printed = now
            left = (self._stop - step) * self._batch_size / max(rate, 1e-9)
            print(
                f"step {step}/{self._stop}  {rate:,.0f} images/s  {left:.0f} s left  {self._loss}",
                file=sys.stderr,
            )

    def close(self):
        self._bar.close()


class Profiler:
    """A `jax.profiler` trace of some steps, for TensorBoard or Perfetto.

    Args:
      folder: where the trace goes.
      start_step: steps of this launch to let pass first, compilation among them.
      num_steps: steps to trace, 0 for none.
    """

    def __init__(self, folder, start_step, num_steps):
        self._folder, self._first, self._last = folder, start_step, start_step + num_steps
        self._tracing = False

    def update(self, step):
        """Says that step `step` of this launch comes next."""
        if not self._tracing and self._first <= step < self._last:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        elif self._tracing and step >= self._last:
            self.close()

    def close(self):
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
