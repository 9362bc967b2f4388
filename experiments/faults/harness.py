"""What the fault suites share: a small run in a process of its own, and what it left behind.

The run is a config at its smallest, the default one if not told, with everything on that a resume
has to bring back: moving average, clipping, accumulation, a schedule, augmentation; it logs every
step. `--run=gan_digits` is a game with two updates of the discriminator a step, lazy penalties and
ADA's feedback.
"""

import hashlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments.run import Run
from genjax.data.sources import cache_root
from genjax.train.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent.parent

SEED = flags.DEFINE_integer("seed", 0, "Of the places and moments of the faults.")
RUN = flags.DEFINE_enum("run", "vae_digits", ["vae_digits", "gan_digits"], "The small run.")

OVERRIDES = {
    "eval.num_samples": 0,
    "num_train_steps": 200,
    "batch_size": 8,
    "log_every_steps": 1,
    "eval_every_steps": 20,
    "sample_every_steps": 20,
    "checkpoint_every_steps": 10,
    "ema.decay": 0.9,
    "optim.schedule": "cosine",
    "data.flip": "random",
}
OF_A_RUN = {
    "vae_digits": {"optim.accumulate_steps": 2, "optim.clip_norm": 1.0},
    "gan_digits": {
        "eval.num_samples_in_loop": 0,
        "eval.standing_samples": 0,
        "objective.loss": "non_saturating",
        "objective.d_steps": 2,
        "objective.r2": 0.0,
        "objective.penalty_interval": 3,
        "objective.lecam": 0.1,
        "objective.spectral_norm": True,
        "augment.name": "ada",
        "augment.p": 0.3,
        "augment.interval": 3,
        "augment.speed_images": 1000,
    },
}


def name():
    """Of the config; the tests parse no flags."""
    return RUN.value if flags.FLAGS.is_parsed() else RUN.default


def settings(overrides):
    """{config key: value} of the small run."""
    return {**OVERRIDES, **OF_A_RUN[name()], **overrides}


def start(workdir, overrides, *, die_at="", flags=(), devices=1, env=None):
    """Starts `launch.py` on the small run; its messages go to `<workdir>.log`.

    Args:
      workdir: a path.
      overrides: {config key: value} on top of its `settings`.
      die_at: "POINT:N", where and the how manieth time the process kills itself; see `victim`.
      flags: further flags of launch.py.
      devices: virtual CPU devices.
      env: further environment variables.

    Returns:
      A `subprocess.Popen`.
    """
    command = [sys.executable, "-m", "experiments.faults.victim", die_at]
    command += [f"--config=configs/{name()}.py:smoke", f"--workdir={workdir}", *flags]
    command += [f"--config.{key}={value}" for key, value in settings(overrides).items()]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "GENJAX_CACHE": str(cache_root()),
        **(env or {}),
    }
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def finish(workdir, overrides, **options):
    """Runs the small run to its end; returns its exit code."""
    return start(workdir, overrides, **options).wait(timeout=300)


def messages(workdir):
    """What the processes on a workdir have said so far."""
    path = Path(f"{workdir}.log")
    return path.read_text(errors="replace") if path.exists() else ""


def resumed_at(workdir):
    """The step at which the latest process went on, 0 if it began."""
    found = re.findall(r"resuming .* at step (\d+)", messages(workdir))
    return int(found[-1]) if found else 0


def steps_on_disk(workdir):
    """Steps whose checkpoints are listed."""
    folder = Path(workdir) / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())


def last_line(workdir):
    """The number of whole lines of metrics.jsonl."""
    path = Path(workdir) / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def config_of(overrides):
    """The config of the small run."""
    config = importlib.import_module(f"configs.{name()}").get_config("smoke")
    config.update_from_flattened_dict(settings(overrides))
    return config


def end_of(workdir, overrides):
    """sha256 of each leaf of the newest checkpoint, and of metrics.jsonl."""
    run = Run.build(config_of(overrides))
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    state, _ = checkpoints.restore(run.template())
    found = {"metrics.jsonl": (Path(workdir) / "metrics.jsonl").read_bytes()}
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        found[jax.tree_util.keystr(path)] = np.asarray(x).tobytes()
    return {name: hashlib.sha256(value).hexdigest() for name, value in found.items()}


def table(rows, header):
    """Rows of strings as aligned text."""
    rows = [header, *[tuple(map(str, row)) for row in rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )
