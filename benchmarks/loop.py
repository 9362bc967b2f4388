"""Cost of the training loop: steps/s of the full loop over those of the bare compiled step.

The same step on the same batches, in one process, in turns: once in a plain `for` with nothing
around it, once as `launch.py` runs it, with metrics, progress, TensorBoard and checkpoints.

python -m benchmarks.loop [--config=configs/vae_mnist.py] [--steps=400] [--rounds=3]
"""

import functools
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import config_flags

from benchmarks.timing import take_turns
from genjax.data.dataset import train_batches
from genjax.runner.command import run_main
from genjax.runner.position import Position
from genjax.runner.run import Run, set_up_process
from genjax.runner.trainer import Trainer
from genjax.runner.workdir import open_checkpoints
from genjax.train.signals import StopOnSignal

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
STEPS = flags.DEFINE_integer("steps", 400, "Steps in each turn.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each kind.")

LOGS, SAVES = 10, 2  # in each turn of the loop


def bare_step_seconds(run: Run, steps: int) -> float:
    """Returns the seconds of one compiled step alone; the first call does not count."""
    batch_at = train_batches(run.train_data, run.config.batch_size, run.config.seed)
    train_step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
    state = run.start()
    state, _ = train_step(state, run.parallel.shard(batch_at(0)))
    jax.block_until_ready(state)
    start = time.perf_counter()
    for step in range(1, steps):
        state, _ = train_step(state, run.parallel.shard(batch_at(step)))
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / (steps - 1)


def loop_step_seconds(run: Run) -> float:
    """Returns the seconds of one step in the loop; first call, evaluation and drawing do not
    count."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        position = Position(run, open_checkpoints(run.config, workdir))
        with StopOnSignal() as signals:
            _, speed = Trainer(run, position, workdir, {}, signals).train()
    return run.config.batch_size / speed["images_per_second"]


def main(argv: list[str]) -> None:
    """Measures both in turns and prints the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    config = CONFIG.value
    set_up_process(config)
    config.num_train_steps = STEPS.value
    config.eval_every_steps = config.sample_every_steps = 0
    config.log_every_steps = max(1, STEPS.value // LOGS)
    config.checkpoint_every_steps = max(1, STEPS.value // SAVES)
    run = Run.build(config)
    contestants = {
        "bare": functools.partial(bare_step_seconds, run, STEPS.value),
        "loop": functools.partial(loop_step_seconds, run),
    }
    seconds = take_turns(contestants, ROUNDS.value)
    rates = {name: [1 / s for s in values] for name, values in seconds.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "steps_per_second": medians,
        "ratio": medians["loop"] / medians["bare"],
        "all": rates,
        "saves": SAVES,
        "logs": LOGS,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
