"""Signals as requests: the first one asks a run to save and stop, the second one ends it."""

import multiprocessing
import os
import signal
import threading
from types import TracebackType

from genjax.messages import write_line

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(Exception):
    """A signal ended the training early; everything is saved.

    Attributes:
      step: the step that was saved.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


class StopOnSignal:
    """Turns the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 into a request to stop.

    To be used as a context, in the main thread. `stop(step)` tells whether a signal has come. The
    second signal ends the process at once with code 128 + its number, and so does the first while
    there is nothing to save. Both work while the main thread compiles: a separate thread listens,
    because Python's handlers would wait until the compiler returns.

    Attributes:
      received: the name of the first signal, or None.
      something_to_save: whether a step has been made, which a stop has to save; to be set by the
        training loop.
    """

    received: str | None
    something_to_save: bool

    def __enter__(self) -> "StopOnSignal":
        self.received, self.something_to_save = None, False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # A signal that is ignored (nohup) stays ignored.
        self._previous = {
            s: signal.signal(s, lambda signum, frame: None)
            for s in SIGNALS
            if signal.getsignal(s) != signal.SIG_IGN
        }
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        os.close(self._write)
        self._listener.join()
        os.close(self._read)

    def _listen(self) -> None:
        """Waits for signals until `__exit__` closes the pipe."""
        while received := os.read(self._read, 1):
            name = signal.Signals(received[0]).name
            if self.received or not self.something_to_save:
                why = "again: ends at once" if self.received else "there is nothing to save yet"
                write_line(f"{name}: {why}")
                for child in multiprocessing.active_children():  # data workers
                    child.kill()
                os._exit(128 + received[0])
            self.received = name
            write_line(f"{name}: saving after this step; once more ends at once")

    def stop(self, step: int) -> bool:
        """Tells whether a signal has asked the run to stop after `step`."""
        return self.received is not None
