"""Files that are there whole or not at all: a reader, or a kill, never meets half of one."""

import contextlib
import json
import os
from pathlib import Path


@contextlib.contextmanager
def whole_file(path):
    """Gives a path to write to, which becomes `path` in the end; if writing fails, nothing does."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
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
    write_text(path, json.dumps(value, indent=1) + "\n")
