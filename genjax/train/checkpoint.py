"""Checkpoints that cannot lie: orbax writes and reads, checksums say whether to believe it.

A checkpoint is a folder `<step>/`, there whole (renamed into place) or not at all. It holds the
state and a `meta` item: the config, the metrics, the shape, dtype and checksum of every leaf, and
a sha256 of all that. The checksums are computed on the devices before saving and again after
restoring, so that whatever happened in between is found: on the way to the disk, on it, or back.
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
from pathlib import Path

import absl.logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from genjax.errors import RunError, UserError
from genjax.train.parallel import agreed, from_main, is_main

FORMAT = 2

TRASH = ".trash"  # steps on their way out
BAD = "bad"  # steps that failed verification: kept, never listed


class Checkpoints:
    """The checkpoints of one run, `<directory>/<step>/`.

    Saving is asynchronous: `save` returns when the values are on the host, and the files are
    written while training goes on. With several processes, all of them call every method.

    Args:
      directory: where they live; made if missing.
      keep_last: the newest steps to keep.
      keep_every: also keep every step that is a multiple of this, 0 for none.
      best_metric: also keep the step with the best value of this metric, "" for none.
      best_mode: "min" or "max".
      scores: {step: metrics} that became known after a step was saved.
      read_only: nothing in the directory is touched; another process may be training.
      warn: called with one line about what went wrong and was survived.
    """

    def __init__(
        self,
        directory,
        keep_last=1,
        keep_every=0,
        best_metric="",
        best_mode="min",
        *,
        scores=None,
        read_only=False,
        warn=print,
    ):
        self.directory = Path(directory).absolute()
        self._keep_last, self._keep_every = keep_last, keep_every
        self._best_metric, self._sign = best_metric, 1 if best_mode == "min" else -1
        self._read_only, self._warn = read_only, warn
        self._scores = dict(scores or {})  # step -> its metrics
        self._saver = self._finisher = self._error = None
        if is_main() and not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def steps(self):
        """Steps that were saved whole, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(
            int(p.name)
            for p in self.directory.iterdir()
            if p.name.isdecimal() and p.name == str(int(p.name)) and p.is_dir()
            if not p.is_symlink()
        )

    def best_step(self):
        """The kept step with the best metric."""
        ranked = self._ranked(self.steps())
        if not ranked:
            raise UserError(f"no checkpoint in {self.directory} was saved with a metric to rank it")
        return ranked[0]

    def score(self, step, metrics):
        """Tells the metrics of a step that was saved without them."""
        self._scores[step] = metrics

    def save(self, step, state, config, metrics=None, extra=None):
        """Begins to save `state`; a failure is reported by `poll`, the next `save` or `close`.

        Args:
          step: int.
          state: pytree of arrays, one copy of it.
          config, metrics, extra: JSON dicts kept beside it.
        """
        self._finish()
        if agreed(step in self.steps()):
            return
        # Summed before the copies are made, which are ours: the state's buffers are donated.
        sums = checksums(state)
        state = jax.tree.map(lambda x: x.copy(), state)
        body = {
            "format": FORMAT,
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

    def _complete(self, step):
        """In the background: waits for the files, then makes room."""
        try:
            self._saver.wait_until_finished()
            self._error = None
        except Exception as error:
            self._scores.pop(step, None)
            self._error = (step, error)
            return
        if is_main():
            self._retain()

    def poll(self):
        """Reports a save that failed in the background; call it now and then."""
        if self._finisher is not None and not self._finisher.is_alive():
            self._finish()

    def _finish(self):
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None
            if self._error is not None:
                self._failed(*self._error)

    def _failed(self, step, error):
        self._error = (step, error)
        with contextlib.suppress(Exception):
            self._saver.close()
        self._saver = None  # orbax's own would raise this error again
        self._warn(
            f"could not save the checkpoint of step {step} in {self.directory}: "
            f"{_reason(error)}; the newest one is {max(self.steps(), default='none')}"
        )
        if is_main():
            time.sleep(1)  # threads of the save that failed write on for a moment
            self._sweep()

    def close(self):
        """Waits for the save under way.

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

    def restore(self, template, step=None):
        """The state saved at `step`, or the newest one that proves right.

        Args:
          template: a pytree of `jax.ShapeDtypeStruct`s with shardings, or of arrays.
          step: one step and no other; None for the newest good one. Bad ones that are passed over
            are reported and moved into `bad/`.

        Returns:
          (state, meta), meta being {"step", "config", "metrics", "extra", ...} as saved.

        Raises:
          UserError: there is no such step, or it holds another form of state.
          RunError: no checkpoint could be verified.
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
            found, why = self._restore(template, chosen)
            if agreed(why is None):
                self._set_aside(bad)
                return found
            bad[chosen] = why
        if not bad and not self._set_aside_before():
            raise UserError(f"no checkpoint of any step in {self.directory}")
        reasons = "; ".join(f"step {s}: {why}" for s, why in bad.items())
        raise RunError(
            f"no good checkpoint in {self.directory} ({reasons or 'bad ones lie in bad/'}); "
            "nothing was changed: mend it, or begin again in another --workdir"
        )

    def _set_aside_before(self):
        folder = self.directory / BAD
        return folder.is_dir() and any(folder.iterdir())

    def empty(self):
        """Whether no step was ever saved here: none is listed, none was set aside."""
        self._finish()
        return not self.steps() and not self._set_aside_before()

    def _restore(self, template, step):
        """((state, meta), None), or (None, why not)."""
        try:
            meta, why = self._meta(step), None
        except Exception as error:
            meta, why = None, f"its meta data are damaged ({_reason(error)})"
        if not agreed(meta is not None):  # all processes go on, or none
            return None, why or "another process cannot read its meta data"
        if meta["format"] != FORMAT:
            other = "a newer" if meta["format"] > FORMAT else "an older"
            raise UserError(
                f"{self.directory}/{step} was written by {other} genjax (format "
                f"{meta['format']}, this one reads {FORMAT})"
            )
        found, wanted = meta["leaves"], _leaves(template)
        for path in sorted(found.keys() | wanted.keys()):
            if found.get(path) != wanted.get(path):
                raise UserError(
                    f"{self.directory}/{step} does not fit this model: {path} is "
                    f"{found.get(path, 'missing')} there, {wanted.get(path, 'missing')} here"
                )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        try:
            state = _read_state(self.directory / str(step) / "state", target)
        except Exception as error:  # KeyError, JSONDecodeError, ValueError, bare Exception, ...
            state, why = None, f"it cannot be read ({_reason(error)})"
        # All processes or none: the checksums of sharded leaves are computed together.
        if not agreed(state is not None):
            return None, why if state is None else "another process cannot read it"
        sums = checksums(state)
        wrong = [path for path in sums if sums[path] != meta["sums"].get(path)]
        if wrong:
            share = f"{len(wrong)} of {len(sums)} leaves"
            return None, f"{share} have other values than were saved, as {wrong[0]}"
        return (state, meta), None

    def _meta(self, step):
        """The verified meta data of a step."""
        meta = json.loads((self.directory / str(step) / "meta" / "metadata").read_text())
        if _digest(meta["body"]) != meta["sha256"]:
            raise ValueError("wrong sha256")
        return meta["body"]

    def _set_aside(self, bad):
        for step, why in bad.items():
            where = "left in place"
            if not self._read_only:
                where = f"moved to {BAD}/"
                if is_main():
                    (self.directory / BAD).mkdir(exist_ok=True)
                    _move(self.directory / str(step), self.directory / BAD)
            self._warn(f"the checkpoint of step {step} is bad ({where}): {why}")

    def _ranked(self, steps):
        """Those of `steps` that have the metric, best first, of two equal ones the earlier."""
        if not self._best_metric:
            return []
        for step in steps:
            if step not in self._scores:
                try:
                    self._scores[step] = self._meta(step)["metrics"]
                except Exception:  # a bad step: it is nobody's best
                    self._scores[step] = {}
        scored = [s for s in steps if self._best_metric in self._scores[s]]
        return sorted(scored, key=lambda s: self._sign * self._scores[s][self._best_metric])

    def _retain(self):
        """Deletes what need not be kept. Renamed first: a step is listed whole or not at all."""
        steps = self.steps()
        keep = set(steps[-self._keep_last :]) | set(self._ranked(steps)[:1])
        if self._keep_every:
            keep |= {s for s in steps if s % self._keep_every == 0}
        for step in set(steps) - keep:
            (self.directory / TRASH).mkdir(exist_ok=True)
            _move(self.directory / str(step), self.directory / TRASH)
        shutil.rmtree(self.directory / TRASH, ignore_errors=True)

    def _sweep(self):
        """Removes what a killed or failed save, or deletion, left behind."""
        shutil.rmtree(self.directory / TRASH, ignore_errors=True)
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)


def _read_state(path, target):
    """Each process for itself, without barriers: what one cannot read, none waits for."""
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"restore{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return handler.restore(path, args=ocp.args.StandardRestore(target))


def checksums(tree):
    """{path: int} of every leaf, whatever its sharding, computed where it lives.

    The sum of a leaf's 32-bit words times odd weights that depend on their place, modulo 2^32: one
    flipped bit always changes it, other faults do with probability 1 - 2^-32.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = jax.device_get(_checksums([x for _, x in flat]))
    return {jax.tree_util.keystr(p): int(s) for (p, _), s in zip(flat, sums, strict=True)}


@jax.jit
def _checksums(leaves):
    return [_checksum(x) for x in leaves]


def _checksum(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = min(x.dtype.itemsize * 8, 32)
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    # The place in the flattened array, without flattening: that would gather a sharded leaf.
    place, stride = jnp.zeros((), jnp.uint32), 1
    for dimension in reversed(range(words.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, words.shape, dimension)
        place = place + along * jnp.uint32(stride % 2**32)
        stride *= words.shape[dimension]
    weights = place * jnp.uint32(2654435761) * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(words * weights, dtype=jnp.uint32)


def _leaves(tree):
    """{path: "dtype[shape]"} of every leaf."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p): f"{x.dtype}{list(x.shape)}" for p, x in flat}


def _digest(body):
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _move(path, folder):
    """Renames `path` into `folder`, under a name that is not taken."""
    os.rename(path, folder / f"{path.name}-{time.time_ns()}")


def _reason(error):
    """One line for an exception, with what it was."""
    text = " ".join(str(error).split())
    if "RESOURCE_EXHAUSTED" in text or getattr(error, "errno", None) in (
        errno.ENOSPC,
        errno.EDQUOT,
    ):
        return "the disk is full"
    text = text if len(text) < 200 else text[:200] + " ..."
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def quiet_orbax():
    """Keeps orbax from printing what is reported here: pages for an array it could not read."""

    def but_orbax(told):
        def hook(args):
            files = [f.filename for f in traceback.extract_tb(args.exc_traceback)]
            if not any("orbax" in name for name in files):
                told(args)

        return hook

    threading.excepthook = but_orbax(threading.excepthook)  # its threads raise, so do their joins
    sys.unraisablehook = but_orbax(sys.unraisablehook)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # futures nobody asked again
    absl.logging.set_verbosity(absl.logging.FATAL)  # 40 lines a save, 300 for one that fails
