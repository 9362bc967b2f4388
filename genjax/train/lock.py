"""One run, one workdir."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
from pathlib import Path

from genjax.errors import UserError


@contextlib.contextmanager
def locked(workdir, say=print):
    """Holds `workdir/.lock` for the length of a block; made if missing.

    The operating system lets go of the lock when its process ends, however it ends, so a file left
    by a killed run is stale by itself.

    Args:
      workdir: a folder.
      say: called with one line when such a file was found.

    Raises:
      UserError: another run holds it; names its process, host and start.
    """
    path = Path(workdir) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        holder = _holder(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = False
        except BlockingIOError:
            taken = True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            taken = _is_running(holder)  # a file system without locks
        if taken:
            who = "process {pid} on {host}, since {since}".format_map(holder or _UNKNOWN)
            raise UserError(
                f"{workdir} is in use by {who}; wait for it, stop it, or choose another --workdir"
            )
        if holder:
            say(
                f"{workdir}: process {holder['pid']} on {holder['host']} ended without unlocking; "
                "going on from what it saved"
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        _rewrite(file, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        try:
            yield
        finally:
            _rewrite(file, "")


_UNKNOWN = {"pid": "unknown", "host": "unknown", "since": "unknown"}


def _holder(file):
    """What the lock file says, {} if nothing that can be read."""
    file.seek(0)
    try:
        return {**_UNKNOWN, **json.loads(file.read())}
    except (ValueError, TypeError):
        return {}


def _is_running(holder):
    if not holder or holder["host"] != platform.node():
        return bool(holder)  # from here nobody can tell
    try:
        os.kill(int(holder["pid"]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _rewrite(file, text):
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
