"""`configs/gan_mnist.py` against the tutorial's own game in Keras/TensorFlow, turn by turn.

The same images, batch size, networks and cores; in each round the next contestant has its turn:

  keras written    the tutorial's loop: `predict`, `train_on_batch` for each player
  keras compiled   one `tf.function` step over NumPy batches; both gradients of one pass, so that
                   the players move at once, which is less work than one after the other
  keras in_turn    one `tf.function` step that moves one player after the other
  ours             the compiled train step of this project; one player after the other, with checks
                   for numbers that are not finite

python -m experiments.bench.gan_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one); an epoch here is
a round of 40 steps as written and 400 of each of the others.
"""

import json
import statistics
import time

import jax
import numpy as np
from absl import logging

from configs import gan_mnist
from experiments.bench.beside_keras import DATA_DIR, EPOCHS, SEED, Keras, Ours
from experiments.command import run_main
from experiments.evaluation import make_sampler
from experiments.run import Run, set_up_process

STEPS = {"keras written": 40, "keras compiled": 400, "keras in_turn": 400, "ours": 400}
NUM_DRAWN = 25


def main(_):
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
    sample = make_sampler(run)
    draw = lambda: sample(run.eval_tree(ours.state), 0, np.arange(NUM_DRAWN))
    draw()  # compile

    def seconds_to_draw():
        began = time.perf_counter()
        draw()
        return time.perf_counter() - began

    train, drawing = {name: [] for name in STEPS}, {name: [] for name in STEPS}
    for _ in range(EPOCHS.value):
        for name, steps in STEPS.items():
            who = name.removeprefix("keras ")
            mine = name == "ours"
            train[name].append(ours.train(steps) if mine else keras.ask(f"train {who} {steps}")[0])
            drawing[name].append(seconds_to_draw() if mine else keras.ask(f"draw {who}")[0])
    rate = {name: STEPS[name] / statistics.median(s) for name, s in train.items()}
    result = {
        "steps_per_second": rate,
        "ratio_to_written": rate["ours"] / rate["keras written"],
        "ratio_to_compiled": rate["ours"] / rate["keras compiled"],
        "ratio_to_in_turn": rate["ours"] / rate["keras in_turn"],
        "milliseconds_to_draw_25": {k: 1e3 * statistics.median(s) for k, s in drawing.items()},
        "batch_size": config.batch_size,
        "rounds": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
