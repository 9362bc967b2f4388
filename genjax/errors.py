"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something the user has to change: a config key, a file, a dataset, a workdir.

    The message is one line: what is wrong, where, what to do. `launch.py` prints it without a
    traceback and exits with code 2.
    """
