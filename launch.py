"""Trains, evaluates, samples or exports what a config describes.

python launch.py [--config=configs/NAME.py[:ARG]] [--workdir=DIR] [--mode=MODE] [--config.KEY=V ...]
"""

import re
import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from genjax.errors import UserError
from genjax.files import user_path
from genjax.runner.command import run_main

MODES = ("train", "eval", "sample", "export", "prepare")

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "vae_digits.py"

CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"The run: configs/NAME.py[:smoke,seeds=N]. Default: {DEFAULT_CONFIG}"
)
WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; runs/NAME if not given.")
MODE = flags.DEFINE_string(
    "mode", "train", f"One of {', '.join(MODES)}, or a further one of the config's family."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join processes that JAX finds (SLURM, TPU pod, Open MPI, Kubernetes)."
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, if JAX finds none.")
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes, if JAX finds none.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, if JAX finds none.", lower_bound=0
)
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
    """Checks the flags, joins other processes, and does what --mode says."""
    # Imported after the flags: --help need not wait for JAX.
    from genjax.runner import datasets, family, modes, run, train
    from genjax.train.parallel import start_processes

    if argv[1:]:
        raise UserError(f"'{argv[1]}' is not a flag; flags begin with --, see --help")
    config = CONFIG.value
    if not IMAGES.value:  # which are judged by fields that the run itself may not use
        _forget_idle(config)
    actions = {
        "eval": modes.evaluate,
        "sample": modes.sample,
        "export": modes.export,
        **family.optional(config, "MODES", {}),
    }
    known = dict.fromkeys((*MODES, *actions))
    if MODE.value not in known:
        raise UserError(f"--mode={MODE.value} is not known; known: {', '.join(known)}")
    if not (STEP.value in ("latest", "best") or re.fullmatch("[0-9]+", STEP.value)):
        raise UserError(f"--step={STEP.value} must be a number, latest or best")
    if IMAGES.value and MODE.value != "eval":
        raise UserError(f"--images={IMAGES.value} is for --mode=eval")
    run.set_up_process(config)
    if _several_processes():
        start_processes(
            COORDINATOR.value,
            NUM_PROCESSES.value,
            PROCESS_ID.value,
            START_SECONDS.value,
            HEARTBEAT_SECONDS.value,
        )
    name, source = _name_and_source()
    workdir = user_path(WORKDIR.value, "--workdir") if WORKDIR.value else Path("runs") / name
    if MODE.value == "train":
        if train.train(config, workdir, source) is None:
            sys.exit(config.requeue_exit_code)
    elif MODE.value == "prepare":
        datasets.prepare(config)
    elif IMAGES.value:
        modes.evaluate_images(config, workdir, source, IMAGES.value)
    else:
        actions[MODE.value](config, workdir, source, STEP.value)


def _forget_idle(config):
    """Resets what the file sets for something that the command line replaces, such as the options
    of another optimizer. What the command line sets stays, and is refused where it has no effect.
    """
    from genjax.runner import family
    from genjax.runner.config import FIELDS
    from genjax.runner.fields import forget_idle, merged

    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    fields = merged(FIELDS, family.find_family(config.experiment).FIELDS)
    forget_idle(config, fields, overrides, keep=overrides)


def _several_processes():
    """Returns whether this is one of several processes; checks the flags about them."""
    if COORDINATOR.value and not COORDINATOR.value.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={COORDINATOR.value} must be host:port")
    several = DISTRIBUTED.value or bool(COORDINATOR.value)
    for flag in (NUM_PROCESSES, PROCESS_ID):
        if flag.value is not None and not several:
            raise UserError(
                f"--{flag.name}={flag.value} needs --coordinator=host:port, or --distributed"
            )
    return several


def _name_and_source():
    """Returns the default name of the workdir, and what the records say about the command."""
    path, _, arg = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = "_".join(filter(None, [Path(path).stem, arg.replace("=", "").replace(",", "_")]))
    if Path(path) == DEFAULT_CONFIG:
        path = f"configs/{DEFAULT_CONFIG.name}"
    config_file = path + (f":{arg}" if arg else "")
    return name, {"config_file": config_file, "arguments": shlex.join(sys.argv[1:])}


if __name__ == "__main__":
    run_main(main, DEFAULT_CONFIG)
