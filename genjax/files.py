"""Atomic writes, and the folder of the caches.

A file written here is complete or absent: neither a reader nor a killed process meets half of one.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OLD_SECONDS = 600  # writing one file never takes that long


def cache_root() -> Path:
    """Returns $GENJAX_CACHE, else $XDG_CACHE_HOME/genjax, else ~/.cache/genjax."""
    if "GENJAX_CACHE" in os.environ:
        return Path(os.environ["GENJAX_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "genjax"


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
    """Writes a text file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text)


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
    for partial in Path(folder).rglob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > OLD_SECONDS:
                partial.unlink()
