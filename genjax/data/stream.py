"""Batches decoded ahead of the steps that need them, by threads or processes, with Grain.

Grain streams complete batches, one a step, so their order is that of the steps for any number of
workers, and a stream can start at any step.
"""

import contextlib
import os
import re
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import connection, process
from typing import Any, Protocol, SupportsInt, runtime_checkable

import grain
import numpy as np
from absl import flags

from genjax.errors import UserError, one_line

_THREADS = 4  # batches decoded at once, by the threads of this process
_AHEAD = 2  # batches decoded at once by each worker process, and batches that wait in its queue
_STEPS = 2**62  # more than any run has


@runtime_checkable
class Readable(Protocol):
    """What is streamed: `genjax.data.dataset.StreamedDataset`."""

    def batch(self, index: np.ndarray, slot: np.ndarray) -> dict[str, np.ndarray]: ...


class StreamedBatches:
    """`batch(step)`, read ahead while the steps follow one another; a jump starts a new stream."""

    def __init__(
        self,
        dataset: Readable,
        order: Callable[[int], tuple[np.ndarray, np.ndarray]],
        num_workers: int = 0,
        stop: int | None = None,
    ):
        """Reads nothing yet.

        Args:
          dataset: the data.
          order: maps a step to (index, slot).
          num_workers: processes; 0 stands for threads.
          stop: the first step that will not be needed, or None.
        """
        self._read = _Read(dataset, order)
        self._num_workers, self._stop = num_workers, stop
        self._next, self._iterators = None, []  # empty, or the one that gives the next step
        # Workers that are alive when the interpreter exits leave shared memory and tracebacks.
        weakref.finalize(self, _close, self._iterators)

    def __call__(self, step: SupportsInt) -> dict[str, np.ndarray]:
        """Returns the batch of a step.

        Raises:
          UserError: an example cannot be read, or a worker process died.
        """
        step = int(step)
        if self._stop is not None and step >= self._stop:
            return self._read(step)
        if step != self._next:
            self.close()
            self._iterators.append(iter(self._stream(step)))
        try:
            batch = next(self._iterators[0])
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError) and "Worker process" in str(error):
                raise UserError(_of_worker(one_line(error), step)) from error
            raise
        self._next = step + 1
        # Copied out of the memory shared with the worker, which is freed at once.
        return {key: np.array(value) for key, value in batch.items()}

    def close(self) -> None:
        """Ends the reading ahead: no worker remains. A later call starts a new stream."""
        _close(self._iterators)
        self._next = None

    def _stream(self, step: int) -> grain.IterDataset:
        steps = grain.MapDataset.range(step, _STEPS if self._stop is None else self._stop)
        batches = steps.map(self._read)
        if self._num_workers == 0:
            return batches.to_iter_dataset(
                grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_THREADS)
            )
        if not flags.FLAGS.is_parsed():  # Grain reads its own flags in every worker
            flags.FLAGS.mark_as_parsed()
        return batches.to_iter_dataset(
            grain.ReadOptions(num_threads=_AHEAD, prefetch_buffer_size=_AHEAD)
        ).mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=self._num_workers, per_worker_buffer_size=_AHEAD
            ),
            worker_init_fn=_set_up_worker,
        )


def _of_worker(text: str, step: int) -> str:
    """Says what to do about a worker process that died, from Grain's message."""
    died = f"a data worker died while it read for step {step} ({text.split('.')[0]})"
    code = re.search(r"exit ?code:? *(-?[0-9]+)", text)
    if code and int(code[1]) == -signal.SIGBUS:  # a page of shared memory that there is no room for
        return (
            f"{died}: /dev/shm is full, through which batches come; make it larger (docker run "
            "--shm-size=8g), or take fewer config.data.num_workers, or 0, which needs none"
        )
    return (
        f"{died}: killed, or out of memory; run again, with fewer config.data.num_workers if "
        "memory is short"
    )


def _close(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


class _Read:
    """Reads the batch of a step; is sent to the workers."""

    def __init__(self, dataset: Readable, order: Callable[[int], tuple[np.ndarray, np.ndarray]]):
        self._dataset, self._order = dataset, order

    def __call__(self, step: SupportsInt) -> dict[str, np.ndarray]:
        return self._dataset.batch(*self._order(int(step)))


def _set_up_worker(index: int, count: int) -> None:
    """Prepares a worker: no accelerator, no signals meant for the run, no life after the run."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if "jax" in sys.modules:  # it read the environment when it was imported
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    # A scheduler and Ctrl-C signal the full group; the run ends in order and then its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    connection.wait([process.parent_process().sentinel])
    os._exit(1)
