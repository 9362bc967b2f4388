"""Folders that are there whole or not at all, made by one process while the others wait."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile

from genjax.data.images import one_line
from genjax.errors import UserError

META = "meta.json"


def cached(folder, make):
    """What `make` wrote into `folder` once: the contents of its meta.json, verified.

    Args:
      folder: Path; made again, and said, if any file in it is missing or not as it was written.
      make: called with the path of an empty folder, writes files there and returns a dict (JSON).

    Raises:
      UserError: the cache cannot be written, or what `make` raises; then nothing is left behind.
    """
    found = verified(folder)
    if found is not None:
        return found
    try:
        with _alone(folder):
            if (found := verified(folder, say=False)) is not None:  # another process was first
                return found
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make(folder, make)
    except OSError as error:
        raise UserError(
            f"cannot write the cache {folder}: {one_line(error.strerror or error)}; make room, or "
            "set GENJAX_CACHE to a folder that can be written"
        ) from error
    found = verified(folder)
    if found is None:
        raise UserError(
            f"the cache {folder} was written and is damaged already; set GENJAX_CACHE to a folder "
            "on another disk"
        )
    return found


def _make(folder, make):
    partial = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    try:
        meta = make(partial)
        meta["sha256"] = {name: _file_sha256(f"{partial}/{name}") for name in os.listdir(partial)}
        with open(f"{partial}/{META}", "w") as f:
            json.dump({"meta": meta, "sha256": _sha256_of(meta)}, f, indent=1)
        try:
            os.rename(partial, folder)
        except OSError:  # no locks here, and another process was first: its copy is as good
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verified(folder, say=True):
    """The meta of `folder`; None if there is no such folder or, which it can say, it is damaged."""
    if not folder.exists():
        return None
    try:
        with open(folder / META) as f:
            content = json.load(f)
        meta = content["meta"]
        if content["sha256"] != _sha256_of(meta):
            raise ValueError(f"{META} does not have its checksum")
        for name, sha256 in meta["sha256"].items():
            if _file_sha256(folder / name) != sha256:
                raise ValueError(f"{name} does not have its checksum")
        return meta
    except Exception as error:  # bytes that are not as written can raise almost anything
        if say:
            reason = one_line(error)
            print(f"cache {folder} is damaged ({reason}); making it again", file=sys.stderr)
        return None


@contextlib.contextmanager
def _alone(folder):
    """Keeps other processes from making `folder`.

    The lock is the kernel's, so it ends with its process however that ends. Where a file system
    has no locks two processes may do the same work; the first result stays.
    """
    with _lock_file(folder) as lock:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process to make {folder}", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_stale(folder)
        yield


def _remove_stale(folder):
    """Removes what killed processes left: partial folders that nobody holds the lock of."""
    for partial in folder.parent.glob(".*-*"):
        name = partial.name[1:].rpartition("-")[0]
        with _lock_file(folder.with_name(name)) as lock, contextlib.suppress(BlockingIOError):
            if name != folder.name:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)


def _lock_file(folder):
    locks = folder.parent.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return open(locks / f"{folder.parent.name}-{folder.name}", "a")


def _file_sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sha256_of(meta):
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
