"""Text for the user, on streams that may fail: the only place that writes to a terminal or a log.

The reader of a log may die, a terminal may close, a disk may be full, nobody may read a pipe any
more. None of that ends a run: what cannot be written is left out, and the run goes on.
"""

import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# Nobody is waited for longer: a reader that is stopped (Ctrl-S, a pager) would stop the run too.
PATIENCE_SECONDS = 5.0

# Bytes that a pipe or a terminal takes without blocking once it is ready.
_PIPE_PART, _TERMINAL_PART = select.PIPE_BUF, 256
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EINTR)  # a full disk is made room on
_STANDARD = (1, 2)
_lock = threading.RLock()
_stalled: set[int] = set()  # descriptors that nobody reads at the moment


def write_line(text: str) -> None:
    """Writes a line to stderr at once; never raises, and waits at most `PATIENCE_SECONDS`."""
    write(sys.stderr, f"{text}\n")


def write(stream: Any, text: str) -> None:
    """Writes text to a stream at once, as `write_line` does to stderr."""
    stream = stream._stream if isinstance(stream, Surviving) else stream
    if stream is None:  # the process was started without it
        return
    with _lock, contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = _descriptor(stream)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        if descriptor is None:
            stream.write(data.decode(encoding))
            stream.flush()
            return
        try:
            stream.flush()
            _write_bytes(descriptor, data)
        except BlockingIOError:
            raise  # full for the moment
        except OSError as error:
            _give_up(descriptor, error)


def close_streams() -> None:
    """Flushes stdout and stderr at the end of a program.

    What cannot be written is given up: Python would end with exit code 120 otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        stream = stream._stream if isinstance(stream, Surviving) else stream
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                _to_null(stream.fileno())


@contextlib.contextmanager
def surviving_streams() -> Iterator[None]:
    """Makes `print` and the progress bars and warnings of libraries survive too, in a block."""
    _open_standard_descriptors()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Surviving, streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        close_streams()


class Surviving(io.TextIOBase):
    """A text stream whose `write` and `flush` never raise."""

    def __init__(self, stream: Any):
        self._stream = stream._stream if isinstance(stream, Surviving) else stream

    def write(self, text: str) -> int:
        write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Does nothing: all is written at once."""

    def close(self) -> None:
        """Does nothing: it belongs to the process."""

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (OSError, ValueError, AttributeError):
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        return self._stream.buffer


def _descriptor(stream: Any) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _write_bytes(descriptor: int, data: bytes) -> None:
    """Writes what the stream takes; once it takes nothing, later calls do not wait for it."""
    patience = 0.0 if descriptor in _stalled else PATIENCE_SECONDS
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    until = time.monotonic() + patience
    part = _TERMINAL_PART if os.isatty(descriptor) else _PIPE_PART
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # in one piece: other processes write to it too
        part = len(data)
    while data:
        if not ready.poll(1000 * max(0.0, until - time.monotonic())):
            _stalled.add(descriptor)
            return
        done = os.write(descriptor, data[:part])
        data = data[done:]
    _stalled.discard(descriptor)


def _give_up(descriptor: int, error: OSError) -> None:
    """Sends what follows to /dev/null, unless the failure may pass."""
    if error.errno not in _MAY_PASS:
        _to_null(descriptor)


def _to_null(descriptor: int) -> None:
    if descriptor in _STANDARD:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _open_standard_descriptors() -> None:
    """Opens those that are closed (`2>&-`): the next file, a checkpoint, would get their number."""
    for descriptor in (0, *_STANDARD):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
