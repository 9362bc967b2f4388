"""Checkpoints written and read by orbax, and verified by checksums.

A checkpoint is a folder `<step>/`, which is complete (renamed when finished) or absent. It holds
the state and a `meta` item: the config, the metrics, the shape, dtype and checksum of every leaf,
and a sha256 of all that. The checksums are computed on the devices before saving and again after
restoring, so that they detect every change in between: on the way to the disk, on it, and back.
Orbax alone returned wrong values without an error for one flipped bit in eight.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import absl.logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

import genjax
from genjax.errors import RunError, UserError
from genjax.train.parallel import agreed, from_main, is_main
from genjax.typing import Array, Shaped

FORMAT = 2

TRASH = ".trash"  # steps that are being deleted
BAD = "bad"  # steps that failed verification: kept, never listed

# How long to wait after a failed save, whose threads still write for a moment.
SECONDS_AFTER_FAILURE = 1.0

# What `restore` returns: the state, and {"step", "config", "metrics", "extra", ...} as saved.
Restored: TypeAlias = tuple[Any, dict[str, Any]]


# --- The checkpoints of a run ---------------------------------------------------------------------


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`.

    Saving is asynchronous: `save` returns when the values are on the host, and the files are
    written while training continues. With several processes, all of them must call every method.

    Attributes:
      directory: the folder of the checkpoints.
    """

    def __init__(
        self,
        directory: str | Path,
        keep_last: int = 1,
        keep_every: int = 0,
        best_metric: str = "",
        best_mode: str = "min",
        *,
        scores: Mapping[int, Mapping[str, Any]] | None = None,
        read_only: bool = False,
        warn: Callable[[str], Any] = print,
    ) -> None:
        """Opens a folder, and removes what interrupted saves left in it.

        Args:
          directory: created if missing.
          keep_last: how many of the newest steps to keep.
          keep_every: also keep every step that is a multiple of this, 0 for none.
          best_metric: also keep the step with the best value of this metric, "" for none.
          best_mode: "min" or "max".
          scores: {step: metrics} of steps that were saved without their metrics.
          read_only: whether to change nothing in the directory: another process may be training.
          warn: called with one line about each error that training survives.
        """
        self.directory = Path(directory).absolute()
        self._keep_last, self._keep_every = keep_last, keep_every
        self._best_metric, self._sign = best_metric, 1 if best_mode == "min" else -1
        self._read_only, self._warn = read_only, warn
        self._scores = dict(scores or {})  # step -> its metrics
        self._saver = self._finisher = self._error = None
        if is_main() and not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def steps(self) -> list[int]:
        """Returns the steps with a complete checkpoint, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(
            int(p.name)
            for p in self.directory.iterdir()
            if p.name.isdecimal() and p.name == str(int(p.name)) and p.is_dir()
            if not p.is_symlink()
        )

    def empty(self) -> bool:
        """Tells whether no step was ever saved here: none is listed, none is in `bad/`."""
        self._finish()
        return not self.steps() and not self._has_bad()

    def best_step(self) -> int:
        """Returns the kept step with the best metric.

        Raises:
          UserError: no kept step has that metric.
        """
        ranked = self._ranked(self.steps())
        if not ranked:
            raise UserError(f"no checkpoint in {self.directory} was saved with a metric to rank it")
        return ranked[0]

    def score(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Sets the metrics of a step that was saved without them."""
        self._scores[step] = metrics

    # --- Saving and deleting ---

    def save(
        self,
        step: int,
        state: Any,
        config: dict[str, Any],
        metrics: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Starts to save `state`; a failure is reported by `poll`, the next `save` or `close`.

        Args:
          step: its number; a step that is saved already is not saved again.
          state: pytree of arrays, not stacked over devices.
          config: saved with it, as JSON.
          metrics: saved with it, as JSON; `best_metric` is looked up in them.
          extra: saved with it, as JSON.
        """
        self._finish()
        if agreed(step in self.steps()):
            return
        # Copies, because the state's buffers are donated to the next step; their checksums are
        # computed from the originals, so that errors of copying are detected, too.
        sums = checksums(state)
        state = jax.tree.map(lambda x: x.copy(), state)
        body = {
            "format": FORMAT,
            "genjax": genjax.__version__,
            "step": step,
            "config": config,
            "metrics": metrics or {},
            "extra": extra or {},
            "leaves": _leaves(state),
            "sums": sums,
        }
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({"sha256": _digest(body), "body": body}),
        )
        if self._saver is None:
            self._saver = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        try:
            self._saver.save(self.directory / str(step), args=args, force=True)
        except Exception as error:  # of many types: OSError, ValueError, XlaRuntimeError
            self._failed(step, error)
            return
        self._scores[step] = metrics or {}
        self._finisher = threading.Thread(target=self._complete, args=(step,), name="save")
        self._finisher.start()

    def _complete(self, step: int) -> None:
        """Waits for the files, then deletes old steps; runs in the background."""
        try:
            self._saver.wait_until_finished()
            self._error = None
        except Exception as error:
            self._scores.pop(step, None)
            self._error = (step, error)
            return
        if is_main():
            self._retain()

    def poll(self) -> None:
        """Reports a save that failed in the background; to be called regularly."""
        if self._finisher is not None and not self._finisher.is_alive():
            self._finish()

    def _finish(self) -> None:
        """Waits for the save in progress and reports its failure."""
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None
            if self._error is not None:
                self._failed(*self._error)

    def _failed(self, step: int, error: Exception) -> None:
        self._error = (step, error)
        with contextlib.suppress(Exception):
            self._saver.close()
        self._saver = None  # this one would raise the same error again
        self._warn(
            f"could not save the checkpoint of step {step} in {self.directory}: "
            f"{_reason(error)}; the newest one is {max(self.steps(), default='none')}"
        )
        if is_main():
            time.sleep(SECONDS_AFTER_FAILURE)
            self._sweep()

    def close(self) -> None:
        """Waits for the save in progress.

        Raises:
          RunError: the last save failed.
        """
        self._finish()
        if self._error is not None:
            step, error = self._error
            self._error = None
            raise RunError(
                f"the checkpoint of step {step} could not be saved in {self.directory} "
                f"({_reason(error)}); make room: the same command goes on from step "
                f"{max(self.steps(), default=0)}"
            )

    def _ranked(self, steps: Sequence[int]) -> list[int]:
        """Returns those of `steps` that have the metric, best first, then earlier first."""
        if not self._best_metric:
            return []
        for step in steps:
            if step not in self._scores:
                try:
                    self._scores[step] = self._meta(step)["metrics"]
                except Exception:  # a bad step is never the best
                    self._scores[step] = {}
        scored = [s for s in steps if self._best_metric in self._scores[s]]
        return sorted(scored, key=lambda s: self._sign * self._scores[s][self._best_metric])

    def _retain(self) -> None:
        """Deletes steps that are not to be kept, after renaming: no partial step is ever listed."""
        steps = self.steps()
        keep = set(steps[-self._keep_last :]) | set(self._ranked(steps)[:1])
        if self._keep_every:
            keep |= {s for s in steps if s % self._keep_every == 0}
        for step in set(steps) - keep:
            (self.directory / TRASH).mkdir(exist_ok=True)
            _move(self.directory / str(step), self.directory / TRASH)
        shutil.rmtree(self.directory / TRASH, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes the remains of interrupted or failed saves and deletions."""
        shutil.rmtree(self.directory / TRASH, ignore_errors=True)
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    # --- Restoring ---

    def restore(self, template: Any, step: int | None = None) -> Restored:
        """Returns the state saved at `step`, or the newest one that passes verification.

        Args:
          template: a pytree of `jax.ShapeDtypeStruct`s with shardings, or of arrays.
          step: the only step to try; None for the newest good one. Steps that fail are reported and
            moved into `bad/`.

        Returns:
          (state, meta), meta being {"step", "config", "metrics", "extra", ...} as saved.

        Raises:
          UserError: there is no such step, or its state has another structure.
          RunError: no checkpoint passed verification.
        """
        self._finish()
        listed = ", ".join(map(str, self.steps())) or "none"
        if step is not None and not agreed(step in self.steps()):
            raise UserError(
                f"no checkpoint of step {step} in {self.directory}; there are: {listed}"
            )
        bad = {}
        candidates = [s for s in reversed(self.steps()) if step in (None, s)]
        while True:
            chosen = from_main(candidates.pop(0) if candidates else -1)
            if chosen < 0:
                break
            restored, why = self._restore(template, chosen)
            if agreed(why is None):
                self._set_aside(bad)
                return restored
            bad[chosen] = why or "another process could not verify it"
        if not bad and not self._has_bad():
            raise UserError(f"no checkpoint of any step in {self.directory}")
        reasons = "; ".join(f"step {s}: {why}" for s, why in bad.items())
        raise RunError(
            f"no good checkpoint in {self.directory} ({reasons or 'bad ones lie in bad/'}); "
            "nothing was changed: repair it, or start again in another --workdir"
        )

    def _restore(self, template: Any, step: int) -> tuple[Restored | None, str | None]:
        """Returns ((state, meta), None), or (None, the reason why not)."""
        try:
            meta, why = self._meta(step), None
        except Exception as error:
            meta, why = None, f"its meta data are damaged ({_reason(error)})"
        if not agreed(meta is not None):  # all processes continue, or none
            return None, why or "another process cannot read its meta data"
        self._check_form(meta, template, step)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            state = _read_state(self.directory / str(step) / "state", target)
        except Exception as error:  # KeyError, JSONDecodeError, ValueError, bare Exception, ...
            state, why = None, f"it cannot be read ({_reason(error)})"
        # All processes or none, as they compute the checksums of sharded leaves together.
        if not agreed(state is not None):
            return None, why if state is None else "another process cannot read it"
        sums = checksums(state)
        wrong = [path for path in sums if sums[path] != meta["sums"].get(path)]
        if wrong:
            share = f"{len(wrong)} of {len(sums)} leaves"
            return None, f"{share} have other values than were saved, as {wrong[0]}"
        return (state, meta), None

    def _check_form(self, meta: dict[str, Any], template: Any, step: int) -> None:
        """Raises UserError for another format, or a state of another structure."""
        if meta["format"] != FORMAT:
            other = "a newer" if meta["format"] > FORMAT else "an older"
            raise UserError(
                f"{self.directory}/{step} was written by {other} genjax (format "
                f"{meta['format']}, this one reads {FORMAT})"
            )
        saved, expected = meta["leaves"], _leaves(template)
        for path in sorted(saved.keys() | expected.keys()):
            if saved.get(path) != expected.get(path):
                written_by = meta.get("genjax", "0.1.0")  # the last version that did not record it
                other = written_by != genjax.__version__
                hint = f"; genjax {written_by} wrote it and can continue it" if other else ""
                raise UserError(
                    f"{self.directory}/{step} does not fit this model: {path} is "
                    f"{saved.get(path, 'missing')} there, {expected.get(path, 'missing')} here"
                    f"{hint}"
                )

    def _meta(self, step: int) -> dict[str, Any]:
        """Reads and verifies the meta data of a step."""
        meta = json.loads((self.directory / str(step) / "meta" / "metadata").read_text())
        if _digest(meta["body"]) != meta["sha256"]:
            raise ValueError("wrong sha256")
        return meta["body"]

    def _set_aside(self, bad: Mapping[int, str]) -> None:
        """Reports bad steps, {step: reason}, and moves them into `bad/`."""
        for step, why in bad.items():
            where = "left in place"
            if not self._read_only:
                where = f"moved to {BAD}/"
                if is_main():
                    (self.directory / BAD).mkdir(exist_ok=True)
                    _move(self.directory / str(step), self.directory / BAD)
            self._warn(f"the checkpoint of step {step} is bad ({where}): {why}")

    def _has_bad(self) -> bool:
        folder = self.directory / BAD
        return folder.is_dir() and any(folder.iterdir())


# --- Reading and checksums ------------------------------------------------------------------------


def _read_state(path: Path, target: Any) -> Any:
    """Reads a state in this process alone: if one process fails, the others do not wait for it."""
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"restore{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return handler.restore(path, args=ocp.args.StandardRestore(target))


def checksums(tree: Any) -> dict[str, int]:
    """Computes {path: checksum} of all leaves, on their devices and independent of their sharding.

    A checksum is the sum of a leaf's 32-bit words times odd weights that depend on their position,
    modulo 2^32: one flipped bit always changes it, other faults do with probability 1 - 2^-32.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = jax.device_get(_checksums([x for _, x in flat]))
    return {jax.tree_util.keystr(p): int(s) for (p, _), s in zip(flat, sums, strict=True)}


@jax.jit
def _checksums(leaves: list[Shaped[Array, "..."]]) -> list[Shaped[Array, ""]]:
    return [_checksum(x) for x in leaves]


def _checksum(x: Shaped[Array, "..."]) -> Shaped[Array, ""]:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = min(x.dtype.itemsize * 8, 32)
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    # Positions in the flattened array, without flattening, which would gather a sharded leaf.
    position, stride = jnp.zeros((), jnp.uint32), 1
    for dimension in reversed(range(words.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, words.shape, dimension)
        position = position + along * jnp.uint32(stride % 2**32)
        stride *= words.shape[dimension]
    weights = position * jnp.uint32(2654435761) * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(words * weights, dtype=jnp.uint32)


def _leaves(tree: Any) -> dict[str, str]:
    """Returns {path: "dtype[shape]"} of all leaves."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p): f"{x.dtype}{list(x.shape)}" for p, x in flat}


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


# --- Helpers --------------------------------------------------------------------------------------


def _move(path: Path, folder: Path) -> None:
    """Moves `path` into `folder`, under a new name that is unique."""
    os.rename(path, folder / f"{path.name}-{time.time_ns()}")


def _reason(error: Exception) -> str:
    """Describes an exception in one line."""
    text = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" in text or getattr(error, "errno", None) in (
        errno.ENOSPC,
        errno.EDQUOT,
    ):
        return "the disk is full"
    text = text if len(text) < 200 else text[:200] + " ..."
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def quiet_orbax() -> None:
    """Keeps orbax from printing pages about errors that `Checkpoints` reports in one line."""

    def without_orbax(handler):
        def handle(args):
            files = [f.filename for f in traceback.extract_tb(args.exc_traceback)]
            if not any("orbax" in name for name in files):
                handler(args)

        return handle

    # Its threads raise the errors that joining them raises, too.
    threading.excepthook = without_orbax(threading.excepthook)
    sys.unraisablehook = without_orbax(sys.unraisablehook)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # errors of futures never awaited
    absl.logging.set_verbosity(absl.logging.FATAL)  # 40 lines a save, 300 for one that fails
