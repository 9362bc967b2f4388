"""Messages to the user: one line, once for all processes, on stderr."""

from collections.abc import Callable
from typing import TypeVar

from genjax.errors import one_line
from genjax.messages import write_line
from genjax.plots import PixelsNotFinite
from genjax.train.parallel import is_main

Result = TypeVar("Result")


def say(text: str) -> None:
    """Prints a message in the main process."""
    if is_main():
        write_line(text)


def warn(text: str) -> None:
    """Prints a warning about something that went wrong and was survived."""
    say(f"warning: {text}")


def unless_it_fails(what: str, draw: Callable[[], Result]) -> Result | None:
    """Returns `draw()`, or None with a warning where it fails: no picture ends a run.

    Raises:
      PixelsNotFinite: the picture's values are NaN or infinity, which is no fault of the drawing.
    """
    try:
        return draw()
    except PixelsNotFinite:
        raise
    except Exception as error:
        warn(f"could not draw {what}: {type(error).__name__}: {one_line(error)[:300]}")
        return None
