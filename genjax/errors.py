"""The two exceptions that end a run with one line instead of a traceback."""


class UserError(Exception):
    """Something the user has to change: a config key, a file, a dataset, a workdir.

    The message is one line: what is wrong, where, what to do. `launch.py` prints it without a
    traceback and exits with `exit_code`.
    """

    exit_code = 2


class RunError(UserError):
    """Something went wrong in a run that was asked for rightly: a NaN, a full disk, bad files."""

    exit_code = 1
