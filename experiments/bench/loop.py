"""What the training loop costs: steps/s of the whole loop over those of the bare compiled step.

The same step on the same batches, in one process, turn by turn: once in a plain `for` with nothing
around it, once as `launch.py` runs it, with metrics, progress, TensorBoard and checkpoints.

python -m experiments.bench.loop [--config=configs/vae_mnist.py] [--steps=400] [--rounds=3]
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import config_flags

from experiments.command import run_main
from experiments.run import Run, set_up_process
from experiments.training import Place, fit
from experiments.workdir import open_checkpoints
from genjax.data.dataset import train_batches
from genjax.train.signals import StopOnSignal

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
STEPS = flags.DEFINE_integer("steps", 400, "Steps in each turn.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each kind.")


def bare(run, steps):
    """Steps/s of the compiled step alone, its first call not counted."""
    batch_at = train_batches(run.train_data, run.config.batch_size, run.config.seed)
    step_fn = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
    state = run.parallel.init(run.init)
    state, _ = step_fn(state, run.parallel.shard(batch_at(0)))
    jax.block_until_ready(state)
    began = time.perf_counter()
    for step in range(1, steps):
        state, _ = step_fn(state, run.parallel.shard(batch_at(step)))
    jax.block_until_ready(state)
    return (steps - 1) / (time.perf_counter() - began)


def whole(run):
    """Steps/s of the loop, its first call, evaluation and drawing not counted."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        checkpoints = open_checkpoints(run.config, workdir)
        with StopOnSignal() as signals:
            _, speed = fit(run, Place(run, checkpoints), workdir, {}, signals)
    return speed["images_per_second"] / run.config.batch_size


def main(_):
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = CONFIG.value
    config.num_train_steps = STEPS.value
    config.eval_every_steps = config.sample_every_steps = 0
    config.log_every_steps = max(1, STEPS.value // 10)
    config.checkpoint_every_steps = max(1, STEPS.value // 2)
    run = Run.build(config)
    rates = {"bare": [], "loop": []}
    for _ in range(ROUNDS.value):
        rates["bare"].append(bare(run, STEPS.value))
        rates["loop"].append(whole(run))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "steps_per_second": medians,
        "ratio": medians["loop"] / medians["bare"],
        "all": rates,
        "saves": 2,
        "logs": 10,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
