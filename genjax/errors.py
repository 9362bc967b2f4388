"""The two exceptions that end a run with one line instead of a traceback."""


class UserError(Exception):
    """An error that the user can correct: a config key, a file, a dataset, a workdir.

    The message is one line: what is wrong, where, what to do. `launch.py` prints it without a
    traceback and exits with `exit_code`.
    """

    exit_code = 2


class RunError(UserError):
    """An error of a run whose request was correct: a NaN, a full disk, damaged files."""

    exit_code = 1


def one_line(text: object) -> str:
    """Returns `str(text)` in one line, every run of white space replaced by one space.

    File names and the messages of libraries may contain line breaks.
    """
    return " ".join(str(text).split())
