"""A lock that keeps two runs from using one workdir."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from genjax.errors import UserError

# On a file system without locks: longer than two processes that start together are apart, and than
# a network file system keeps an old version of a file.
SETTLE_SECONDS = 3.0


@contextlib.contextmanager
def locked(workdir: str | Path, say: Callable[[str], Any] = print) -> Iterator[None]:
    """Holds `workdir/.lock` for the length of a block; the folder is created if missing.

    The operating system releases the lock when its process ends, in whatever way, so the file that
    a killed run leaves behind does not lock anything.

    Args:
      workdir: the folder to lock.
      say: called with one line if a killed run left such a file.

    Raises:
      UserError: another run holds the lock; names its process, host and start.
    """
    path = Path(workdir) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = open(path, "a+")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written: {error.strerror}; choose another --workdir"
        ) from error
    with opened as file:
        holder = _holder(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken, locks = False, True
        except BlockingIOError:
            taken, locks = True, True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            taken, locks = _is_running(holder), False
        if taken:
            raise _in_use(workdir, holder, locks)
        if holder:
            say(
                f"{workdir}: process {holder['pid']} on {holder['host']} ended without unlocking; "
                "continuing from what it saved"
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        own = {"pid": os.getpid(), "host": platform.node(), "since": since, "id": uuid.uuid4().hex}
        if locks:
            _rewrite(file, json.dumps(own))
        else:  # of those that came at the same time, the one that wrote last goes on
            _replace(path, own)
            time.sleep(SETTLE_SECONDS)
            with open(path) as again:
                holder = _holder(again)
            if holder.get("id") != own["id"]:
                raise _in_use(workdir, holder, locks)
        try:
            yield
        finally:
            if locks:
                _rewrite(file, "")
            else:
                path.write_text("")


def _in_use(workdir: str | Path, holder: dict[str, Any], locks: bool) -> UserError:
    who = "process {pid} on {host}, since {since}".format_map(holder or _UNKNOWN)
    # Without locks a process that was killed looks as if it were running.
    gone = "" if locks else f"; if it is gone, delete {Path(workdir) / '.lock'}"
    return UserError(
        f"{workdir} is in use by {who}; wait for it, stop it, or choose another --workdir{gone}"
    )


_UNKNOWN = {"pid": "unknown", "host": "unknown", "since": "unknown"}


def _holder(file: TextIO) -> dict[str, Any]:
    """Returns the content of the lock file, {} if it is empty or damaged."""
    file.seek(0)
    try:
        return {**_UNKNOWN, **json.loads(file.read())}
    except (ValueError, TypeError):
        return {}


def _is_running(holder: dict[str, Any]) -> bool:
    """Tells whether the process of a lock file may be running; True where it is on another host."""
    if not holder or holder["host"] != platform.node():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _rewrite(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _replace(path: Path, own: dict[str, Any]) -> None:
    """Writes a new lock file: without locks, two that write into one file mix their texts."""
    partial = path.with_name(f"{path.name}.{own['id']}.partial")
    partial.write_text(json.dumps(own))
    os.replace(partial, path)
