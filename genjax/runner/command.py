"""Command lines of every program: a user's mistake is one line and exit code 2, no traceback."""

import difflib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from genjax.errors import UserError
from genjax.files import user_path
from genjax.messages import close_streams, surviving_streams, write_line

# A full disk, a folder that may not be written to.
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def run_main(main: Callable[[list[str]], Any], config: str | Path | None = None) -> None:
    """Runs `app.run(main)`; errors of the user or the machine are one line, others a traceback.

    Args:
      main: takes the arguments that are not flags.
      config: the config file of a command line without --config; None for a program without one.
    """
    if config and not any(arg.split("=")[0] in ("--config", "-config") for arg in sys.argv[1:]):
        sys.argv.insert(1, f"--config={config}")
    if config:
        flag = flags.FLAGS["config"]
        flag.parser = GroupParser(getattr(flag.parser, "files", flag.parser))
    with surviving_streams():
        try:
            app.run(main, flags_parser=functools.partial(_parse, has_config=config is not None))
        except UserError as error:
            _print_error(error)
            _leave(error.exit_code)
        except KeyboardInterrupt:
            _leave(130)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
                _print_error(error)
            else:
                traceback.print_exc()
            _leave(1)


class GroupParser(flags.ArgumentParser):
    """Loads the file of --config, with the groups of fields that other flags pick by their names.

    Args:
      files: the parser that loads it.
    """

    def __init__(self, files: flags.ArgumentParser):
        self.files = files

    def parse(self, argument: str) -> ConfigDict:
        config = self.files.parse(argument)
        # A file that is not there is an object that says so when it is used.
        if isinstance(config, ConfigDict) and "experiment" in config:
            from genjax.runner.variants import with_overrides  # imports JAX

            with_overrides(config, argument.partition(":")[2], _overrides(sys.argv))
        return config


def _overrides(argv: list[str]) -> dict[str, str]:
    """Returns {dotted key: text} of the flags --config.KEY=TEXT and --config.KEY TEXT."""
    args = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    found = {}
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        flag, equals, text = arg.partition("=")
        start, _, key = flag.partition(".")
        if start in ("--config", "-config"):
            found[key] = text if equals else following
    return found


def _parse(argv, has_config):
    """Parses the command line; whatever is wrong with it, or with the config, becomes one line."""
    try:
        rest = flags.FLAGS([_with_home(arg) for arg in argv])
        if has_config:
            flags.FLAGS.config.keys()  # a file that failed to load says so when it is first used
        return rest
    except UserError:
        raise
    except Exception as error:
        text = _explain(argv, error) if has_config else " ".join(str(error).split())
        raise UserError(text) from error


def _with_home(arg: str) -> str:
    """Expands ~ in --config=~/path, which a shell leaves alone."""
    flag, equals, path = arg.partition("=")
    if flag.lstrip("-") != "config" or not path.startswith("~"):
        return arg
    return f"{flag}{equals}{user_path(path, '--config')}"


def _explain(argv, error):
    """One line for a failed flag: the nearest key for a wrong one, else the first cause."""
    from genjax.runner.fields import flatten  # imports JAX, which --help need not wait for

    flag = flags.FLAGS["config"]
    path = flag.value and Path(config_flags.get_config_filename(flag).partition(":")[0])
    if path and not path.is_file():
        close = difflib.get_close_matches(str(path), map(str, path.parent.glob("*.py")), n=1)
        nearest = f"; the nearest is {close[0]}" if close else ""
        return f"--config: there is no file {path}{nearest}"
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    try:  # once more without the overrides, to know the keys
        sys.argv = [arg for arg in argv if not arg.startswith("--config.")]
        flags.FLAGS(sys.argv)
        known = flatten(flags.FLAGS.config)
    except Exception:
        where = "" if isinstance(error, flags.Error) else f"--config: {type(error).__name__}: "
        return where + text
    for arg in argv[1:]:
        key = arg.partition("=")[0].removeprefix("--config.")
        inner = any(name.startswith(f"{key}.") for name in known)
        if arg.startswith("--config.") and key not in known and not inner:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            return f"config.{key} is not a key of this config; the nearest is config.{close[0]}"
    return text


def _print_error(error):
    """One line in one write: the messages of several processes may share a file."""
    write_line(f"error: {error}")


def _leave(code):
    """Ends the process; with several, at once: JAX would first wait for the others."""
    close_streams()
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        os._exit(code)
    sys.exit(code)
