"""What the fault suites share: a small run in a process of its own, and what it leaves on disk.

The run is a config at its smallest with everything switched on that a resume has to restore: moving
average, clipping, accumulation, a schedule, augmentation. It logs every step. `--run=gan_digits`
is a GAN with two updates of the discriminator per step, lazy penalties and ADA's feedback.
"""

import hashlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from genjax.files import cache_root
from genjax.runner.run import Run
from genjax.train.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent

SEED = flags.DEFINE_integer("seed", 0, "Of where and when faults happen.")
RUN = flags.DEFINE_enum("run", "vae_digits", ["vae_digits", "gan_digits"], "The small run.")

Overrides = Mapping[str, Any]  # {dotted config key: value}

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
OVERRIDES_OF_A_RUN = {
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


# ---- The small run ----


def config_name() -> str:
    """Returns the name of the config; the tests parse no flags."""
    return RUN.value if flags.FLAGS.is_parsed() else RUN.default


def all_overrides(overrides: Overrides) -> dict[str, Any]:
    """Returns `overrides` and those of the small run."""
    return {**OVERRIDES, **OVERRIDES_OF_A_RUN[config_name()], **overrides}


def config_of(overrides: Overrides) -> ConfigDict:
    """Returns the config of the small run."""
    config = importlib.import_module(f"configs.{config_name()}").get_config("smoke")
    config.update_from_flattened_dict(all_overrides(overrides))
    return config


def start(
    workdir: Path,
    overrides: Overrides,
    *,
    die_at: str = "",
    arguments: Sequence[str] = (),
    devices: int = 1,
) -> subprocess.Popen:
    """Starts `launch.py` on the small run; its messages go to `<workdir>.log`.

    Args:
      workdir: of the run.
      overrides: on top of those of the small run.
      die_at: "POINT:N": the process kills itself the N-th time it comes to a point; see `victim`.
      arguments: further flags of launch.py.
      devices: virtual CPU devices.
    """
    command = [sys.executable, "-m", "faults.victim", die_at]
    command += [f"--config=configs/{config_name()}.py:smoke", f"--workdir={workdir}", *arguments]
    command += [f"--config.{key}={value}" for key, value in all_overrides(overrides).items()]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "GENJAX_CACHE": str(cache_root()),
    }
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def finish(workdir: Path, overrides: Overrides, **options: Any) -> int:
    """Runs the small run to its end; returns its exit code. `options` are those of `start`."""
    return start(workdir, overrides, **options).wait(timeout=300)


# ---- What it leaves on disk ----


def messages(workdir: Path) -> str:
    """Returns the messages of all processes on a workdir so far."""
    path = Path(f"{workdir}.log")
    return path.read_text(errors="replace") if path.exists() else ""


def resumed_at(workdir: Path) -> int:
    """Returns the step at which the latest process resumed, 0 if none did."""
    steps = re.findall(r"resuming .* at step (\d+)", messages(workdir))
    return int(steps[-1]) if steps else 0


def steps_on_disk(workdir: Path) -> list[int]:
    """Returns the steps whose checkpoints are listed."""
    folder = Path(workdir) / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())


def num_lines(workdir: Path) -> int:
    """Returns the number of complete lines of metrics.jsonl."""
    path = Path(workdir) / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def end_of(workdir: Path, overrides: Overrides) -> dict[str, str]:
    """Returns the SHA-256 of each leaf of the newest checkpoint, and of metrics.jsonl."""
    run = Run.build(config_of(overrides))
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    state, _ = checkpoints.restore(run.template())
    contents = {"metrics.jsonl": (Path(workdir) / "metrics.jsonl").read_bytes()}
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        contents[jax.tree_util.keystr(path)] = np.asarray(x).tobytes()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Formats rows as aligned text."""
    rows = [header, *[tuple(map(str, row)) for row in rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )
