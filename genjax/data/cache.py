"""Cache folders that are complete or absent, made by one process while the others wait."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from genjax.errors import UserError, one_line
from genjax.messages import write_line

META = "meta.json"


def cached(folder: Path, make: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Makes a cache folder unless it exists, and returns the verified contents of its meta.json.

    Args:
      folder: Path; made again, with a message, if any of its files is missing or damaged.
      make: called with the path of an empty folder, writes files there and returns a dict (JSON).

    Raises:
      UserError: the cache cannot be written. Whatever is raised, also by `make`, no folder is left.
    """
    meta = verified(folder)
    if meta is not None:
        return meta
    try:
        with _locked(folder):
            if (meta := verified(folder, say=False)) is not None:  # another process was first
                return meta
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make(folder, make)
    except OSError as error:
        raise UserError(
            f"cannot write the cache {folder}: {one_line(error.strerror or error)}; make room, or "
            "set GENJAX_CACHE to a folder that can be written"
        ) from error
    meta = verified(folder)
    if meta is None:
        raise UserError(
            f"the cache {folder} is damaged although it was just written; set GENJAX_CACHE to a "
            "folder on another disk"
        )
    return meta


def _make(folder: Path, make: Callable[[str], dict[str, Any]]) -> None:
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


def verified(folder: Path, say: bool = True) -> dict[str, Any] | None:
    """Returns the metadata of a cache folder if all its files have their checksums.

    Args:
      folder: Path.
      say: whether to report damage on stderr.

    Returns:
      What `make` returned, and {"sha256": {file: checksum}}; None if the folder is absent or
      damaged.
    """
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
    except Exception as error:  # damaged bytes can raise almost anything
        if say:
            reason = one_line(error)
            write_line(f"cache {folder} is damaged ({reason}); making it again")
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from making `folder`.

    The lock is the kernel's, so it ends with its process, however that ends. Where a file system
    has no locks two processes may do the same work; the first result stays.
    """
    with _lock_file(folder) as lock:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                write_line(f"waiting for another process to make {folder}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_stale(folder)
        yield


def _remove_stale(folder: Path) -> None:
    """Removes what killed processes left: partial folders whose lock nobody holds."""
    for partial in folder.parent.glob(".*-*"):
        name = partial.name[1:].rpartition("-")[0]
        with _lock_file(folder.with_name(name)) as lock, contextlib.suppress(BlockingIOError):
            if name != folder.name:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)


def _lock_file(folder: Path) -> IO[str]:
    locks = folder.parent.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return open(locks / f"{folder.parent.name}-{folder.name}", "a")


def _file_sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sha256_of(meta: Any) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
