"""What the training loop costs: steps/s of the whole loop over those of the bare compiled step.

The same step on the same batches, in one process, turn by turn: once in a plain `for` with nothing
around it, once as `launch.py` runs it, with metrics, progress, TensorBoard and checkpoints.

python -m experiments.bench.loop [--config=configs/vae_mnist.py] [--steps=400] [--rounds=3]
"""

import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import run as runner
from genjax.data.dataset import train_batches

CONFIG = config_flags.DEFINE_config_file("config", "configs/vae_mnist.py")
STEPS = flags.DEFINE_integer("steps", 400, "Steps in each turn.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each kind.")


def bare(run, steps):
    """Steps/s of the compiled step alone, its first call not counted."""
    batch_at = train_batches(run.train_data, run.config.batch_size, run.config.seed)
    step_fn = run.parallel.compile_train_step(run.train_step)
    state = run.parallel.replicate(run.init())
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
        with contextlib.closing(runner._checkpoints(run.config, workdir)) as checkpoints:
            state = run.parallel.replicate(run.init())
            never = lambda step: False
            _, _, _, speed = runner._fit(run, state, 0, workdir, checkpoints, {}, never)
    return speed["images_per_second"] / run.config.batch_size


def main(_):
    logging.set_verbosity(logging.ERROR)
    runner.set_up_process()
    config = CONFIG.value
    config.num_train_steps = STEPS.value
    config.eval_every_steps = config.sample_every_steps = 0
    config.log_every_steps = max(1, STEPS.value // 10)
    config.checkpoint_every_steps = max(1, STEPS.value // 2)
    run = runner.Run.build(config)
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
    app.run(main)
