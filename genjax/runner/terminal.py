"""Messages to the user: one line, once for all processes, on stderr."""

from genjax.messages import write_line
from genjax.train.parallel import is_main


def say(text: str) -> None:
    """Prints a message in the main process."""
    if is_main():
        write_line(text)


def warn(text: str) -> None:
    """Prints a warning about something that went wrong and was survived."""
    say(f"warning: {text}")
