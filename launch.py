"""Trains, evaluates, samples or exports what a config describes.

python launch.py [--config=configs/NAME.py[:ARG]] [--workdir=DIR] [--mode=MODE] [--config.KEY=V ...]
"""

import os
import re
import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments.command import run_main
from genjax.errors import UserError

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


if __name__ == "__main__":
    run_main(main, DEFAULT_CONFIG)
