"""Trains, evaluates, samples or exports what a config describes.

python launch.py [--config=configs/NAME.py[:ARG]] [--workdir=DIR] [--mode=MODE] [--config.KEY=V ...]
"""

import difflib
import errno
import os
import re
import shlex
import sys
import traceback
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from genjax.errors import UserError

# A full disk, a folder that may not be written to.
THE_MACHINES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

MODES = ("train", "eval", "sample", "export", "prepare")

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "vae_digits.py"

CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"The run: configs/NAME.py[:smoke,seeds=N]. Default: {DEFAULT_CONFIG}"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Where everything goes; runs/NAME if not given.")
MODE = flags.DEFINE_string("mode", "train", f"One of {', '.join(MODES)}.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join processes that JAX finds (SLURM, TPU pod, Open MPI, Kubernetes)."
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, if not found so.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many, likewise.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is.", lower_bound=0)
START_SECONDS = flags.DEFINE_integer("start_seconds", 300, "How long to wait for the others.")
HEARTBEAT_SECONDS = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "How long a process may be silent before the others end."
)
IMAGES = flags.DEFINE_string(
    "images", "", "With --mode=eval: judge folder:/path or /path.npz instead of a checkpoint."
)
STEP = flags.DEFINE_string(
    "step", "latest", "The checkpoint for eval, sample, export: N, latest or best."
)


def main(argv):
    # After the flags: --help need not wait for JAX.
    from experiments import evaluation, run, training
    from genjax.train.parallel import start_processes

    if argv[1:]:
        raise UserError(f"'{argv[1]}' is not a flag; flags begin with --, see --help")
    if MODE.value not in MODES:
        raise UserError(f"--mode={MODE.value} is not known; known: {', '.join(MODES)}")
    if not (STEP.value in ("latest", "best") or re.fullmatch("[0-9]+", STEP.value)):
        raise UserError(f"--step={STEP.value} must be a number, latest or best")
    if IMAGES.value and MODE.value != "eval":
        raise UserError(f"--images={IMAGES.value} is for --mode=eval")
    run.set_up_process()
    if COORDINATOR.value and not COORDINATOR.value.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={COORDINATOR.value} must be host:port")
    for flag in (NUM_PROCESSES, PROCESS_ID):
        if flag.value is not None and not (DISTRIBUTED.value or COORDINATOR.value):
            raise UserError(
                f"--{flag.name}={flag.value} needs --coordinator=host:port, or --distributed"
            )
    if DISTRIBUTED.value or COORDINATOR.value:
        start_processes(
            COORDINATOR.value,
            NUM_PROCESSES.value,
            PROCESS_ID.value,
            START_SECONDS.value,
            HEARTBEAT_SECONDS.value,
        )
    path, _, arg = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = "_".join(filter(None, [Path(path).stem, arg.replace("=", "").replace(",", "_")]))
    workdir = WORKDIR.value or os.path.join("runs", name)
    if Path(path) == DEFAULT_CONFIG:
        path = f"configs/{DEFAULT_CONFIG.name}"
    source = {
        "config_file": path + (f":{arg}" if arg else ""),
        "arguments": shlex.join(sys.argv[1:]),
    }
    if MODE.value == "train":
        if training.train(CONFIG.value, workdir, source) is None:
            sys.exit(CONFIG.value.requeue_exit_code)
    elif MODE.value == "eval" and IMAGES.value:
        evaluation.evaluate_images(CONFIG.value, workdir, source, IMAGES.value)
    elif MODE.value == "eval":
        evaluation.evaluate(CONFIG.value, workdir, source, STEP.value)
    elif MODE.value == "sample":
        evaluation.sample(CONFIG.value, workdir, source, STEP.value)
    elif MODE.value == "export":
        evaluation.export(CONFIG.value, workdir, STEP.value)
    else:
        run.prepare(CONFIG.value)


def parse_flags(argv):
    """Parses the command line; whatever is wrong with it, or with the config, becomes one line."""
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.keys()  # a config file that failed to load says so when it is first used
        return rest
    except UserError:
        raise
    except Exception as error:
        raise UserError(_explain(argv, error)) from error


def _explain(argv, error):
    """One line for a failed flag: the nearest key for a wrong one, else the first cause."""
    from experiments.config import flatten

    path = flags.FLAGS["config"].value and config_flags.get_config_filename(flags.FLAGS["config"])
    path = Path((path or str(DEFAULT_CONFIG)).partition(":")[0])
    if not path.is_file():
        close = difflib.get_close_matches(str(path), map(str, path.parent.glob("*.py")), n=1)
        nearest = f"; the nearest is {close[0]}" if close else ""
        return f"--config: there is no file {path}{nearest}"
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    try:  # once more without the overrides, to know the keys
        sys.argv = [arg for arg in argv if not arg.startswith("--config.")]
        flags.FLAGS(sys.argv)
        known = flatten(CONFIG.value)
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


def tell(error):
    """One line in one write: the messages of several processes may share a file."""
    sys.stderr.write(f"error: {error}\n")


def leave(code):
    """Ends the process; with several, at once: JAX would first wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    if not any(arg.split("=")[0] in ("--config", "-config") for arg in sys.argv[1:]):
        sys.argv.insert(1, f"--config={DEFAULT_CONFIG}")
    try:
        app.run(main, flags_parser=parse_flags)
    except UserError as error:
        tell(error)
        leave(error.exit_code)
    except KeyboardInterrupt:
        leave(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in THE_MACHINES:
            tell(error)
        else:
            traceback.print_exc()
        leave(1)
