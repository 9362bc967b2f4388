"""Signals as requests: the first one asks a run to save and stop, the second one ends it."""

import multiprocessing
import os
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class StopOnSignal:
    """Turns the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 into a request to stop.

    Use as a context, in the main thread. `stop(step)` says whether a signal came. The second one
    ends the process at once with code 128 + its number, and so does the first while there is
    nothing to save. Both work while the main thread is inside a compilation: a thread of its own
    listens, for Python's handlers would wait until the compiler returns.

    Attributes:
      received: the name of the signal that came, or None.
      something_to_save: whether a stop is worth waiting for; set it when a step was done.
    """

    def __enter__(self):
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

    def __exit__(self, *exc_info):
        signal.set_wakeup_fd(self._previous_fd)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        os.close(self._write)
        self._listener.join()
        os.close(self._read)

    def _listen(self):
        while received := os.read(self._read, 1):
            name = signal.Signals(received[0]).name
            if self.received or not self.something_to_save:
                why = "again: ends at once" if self.received else "there is nothing to save yet"
                _say(f"{name}: {why}")
                for child in multiprocessing.active_children():  # data workers
                    child.kill()
                os._exit(128 + received[0])
            self.received = name
            _say(f"{name}: saving after this step; once more ends at once")

    def stop(self, step):
        return self.received is not None


def _say(text):
    print(text, file=sys.stderr, flush=True)
