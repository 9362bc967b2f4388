"""Compares `configs/gan_mnist.py` with the tutorial's own GAN in Keras, in turns.

The same images, batch size, networks and cores:

  keras written      the tutorial's loop: `predict`, `train_on_batch` for each network
  keras compiled     one `tf.function` step over NumPy batches; the gradients of both networks come
                     from one pass, which is less work than one after the other
  keras alternating  one `tf.function` step that updates first the discriminator, then the generator
  ours               the compiled train step of this project, which does the same, with checks for
                     numbers that are not finite

python -m benchmarks.gan_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one). An epoch here is
a turn of each: 40 steps of the first and 400 of the others.
"""

import functools
import json
import statistics

import jax
import numpy as np
from absl import logging

from benchmarks.keras_comparison import DATA_DIR, EPOCHS, SEED, Keras, Ours
from benchmarks.timing import seconds_of, take_turns
from configs import gan_mnist
from genjax.runner.command import run_main
from genjax.runner.evaluator import Sampler
from genjax.runner.run import Run, set_up_process

STEPS = {"keras written": 40, "keras compiled": 400, "keras alternating": 400, "ours": 400}
NUM_DRAWN = 25


def main(argv: list[str]) -> None:
    """Trains and draws with all contestants and prints the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = gan_mnist.get_config()
    config.data.data_dir = DATA_DIR.value
    config.seed = SEED.value
    config.eval.num_samples = config.eval.num_samples_in_loop = 0
    config.checkpoint.best_metric = ""
    config.sample.batch_size = NUM_DRAWN
    run = Run.build(config)
    keras, ours = Keras("keras_gan", run), Ours(run)
    sampler = Sampler(run)
    sample = lambda: sampler(run.eval_tree(ours.state), 0, np.arange(NUM_DRAWN))
    sample()  # compiles
    contestants = {}
    for name, steps in STEPS.items():
        kind = name.removeprefix("keras ")
        train = functools.partial(keras.seconds, f"train {kind} {steps}")
        draw = functools.partial(keras.seconds, f"draw {kind}")
        if name == "ours":
            train = functools.partial(ours.train, steps)
            draw = functools.partial(seconds_of, sample)
        contestants |= {(name, "train"): train, (name, "draw"): draw}
    seconds = take_turns(contestants, EPOCHS.value)
    rate = {name: n / statistics.median(seconds[name, "train"]) for name, n in STEPS.items()}
    drawing = {name: 1e3 * statistics.median(seconds[name, "draw"]) for name in STEPS}
    result = {
        "steps_per_second": rate,
        "ratio_to_written": rate["ours"] / rate["keras written"],
        "ratio_to_compiled": rate["ours"] / rate["keras compiled"],
        "ratio_to_alternating": rate["ours"] / rate["keras alternating"],
        "milliseconds_to_draw_25": drawing,
        "batch_size": config.batch_size,
        "rounds": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
