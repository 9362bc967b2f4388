"""Atomic writes, and the folder of the caches.

A file written here is complete or absent: neither a reader nor a killed process meets half of one.
"""

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genjax.errors import UserError, one_line

OLD_SECONDS = 600  # writing one file never takes that long


_LOCATION = re.compile("[A-Za-z][A-Za-z0-9+.-]*:[/\\\\]")  # gs://bucket, C:\\folder
_LFS_START = b"version https://git-lfs.github.com/spec/"


def user_path(path: str | os.PathLike, option: str) -> Path:
    """Returns the path that a user gave: ~ is expanded, nothing is made or opened.

    Every path of every command line and config goes through here.

    Args:
      path: of a file or folder, which need not exist.
      option: where it was given, such as "--workdir", for messages.

    Raises:
      UserError: it cannot be a path on this machine.
    """
    text = os.fspath(path)
    shown = one_line(text)
    if not text.strip():
        raise UserError(f"{option} is empty; give a path")
    if _LOCATION.match(text):
        raise UserError(
            f"{option}={shown} is not a path on this machine; mount that storage, or copy the data "
            "to a folder"
        )
    if "\0" in text:
        raise UserError(f"{option}={shown!r} is not a path: it contains a zero byte")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # of whom it is not known
        raise UserError(f"{option}={shown}: {one_line(error)}") from error


def cache_root() -> Path:
    """Returns $GENJAX_CACHE, else $XDG_CACHE_HOME/genjax, else ~/.cache/genjax."""
    if chosen := os.environ.get("GENJAX_CACHE"):
        return user_path(chosen, "GENJAX_CACHE")
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "genjax"


def lfs_hint(path: str | os.PathLike) -> str:
    """Returns what to say of a Git LFS pointer, a text in the place of a file; "" of others."""
    if not os.path.isfile(path):  # opening a pipe would block
        return ""
    try:
        with open(path, "rb") as file:
            is_pointer = file.read(len(_LFS_START)) == _LFS_START
    except OSError:
        return ""
    return "it is a Git LFS pointer, not the file itself: run git lfs pull" if is_pointer else ""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path to write to, and renames it to `path` at the end.

    If the block raises, the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a failed write does not say where
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically; bytes of file names that are not Unicode are escaped."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON atomically; numbers that are not finite, which JSON lacks, become null."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object as a dict; returns {} if the file contains anything else."""
    try:
        content = json.loads(Path(path).read_text(errors="replace"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def sweep(folder: str | os.PathLike) -> None:
    """Removes the temporary files that killed processes left in a folder.

    Files younger than `OLD_SECONDS` stay: another process may be writing them.
    """
    partials = list(Path(folder).rglob(".*.partial"))
    if not partials:
        return
    with contextlib.suppress(OSError):
        now = _time_there(folder)
        for partial in partials:
            with contextlib.suppress(OSError):
                if now - partial.stat().st_mtime > OLD_SECONDS:
                    partial.unlink()


def _time_there(folder: str | os.PathLike) -> float:
    """Returns the time of the folder's file system, whose clock may be another than ours."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b".")
        probe.flush()
        return os.fstat(probe.fileno()).st_mtime
