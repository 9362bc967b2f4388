"""Files that are there whole or not at all: a reader, or a kill, never meets half of one."""

import contextlib
import json
import math
import os
import time
from pathlib import Path

OLD_SECONDS = 600  # no file takes so long to write


@contextlib.contextmanager
def whole_file(path):
    """Gives a path to write to, which becomes `path` in the end; if writing fails, nothing does."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that failed does not say where
        raise


def write_text(path, text):
    """Writes a text file as a whole."""
    with whole_file(path) as partial:
        partial.write_text(text)


def write_json(path, value):
    """Writes JSON; numbers that are not finite, which it does not have, become null."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path):
    """A JSON object as a dict; {} where the file holds none."""
    try:
        found = json.loads(Path(path).read_text(errors="replace"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def sweep(folder):
    """Removes what killed processes left half written, some minutes ago or earlier, in a folder."""
    for partial in Path(folder).rglob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > OLD_SECONDS:
                partial.unlink()
