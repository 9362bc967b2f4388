"""`configs/vae_mnist.py` against the tutorial's own model in Keras/TensorFlow, turn by turn.

The same images, batch size, epochs and cores; after each epoch the next contestant has its turn:

  keras fit    `model.fit`, and the tutorial's loss as it is written (half of the KL)
  keras loop   one `tf.function` step over NumPy batches, the loss as it was meant
  ours         the compiled train step of this project, the loss as it was meant

Pixels are in [0, 1] and not binarised, as in the tutorial, so the -ELBO is a common yardstick
but no likelihood. It is measured alike for all: the whole KL, one posterior sample, test set.

python -m experiments.bench.vae_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

from configs import vae_mnist
from experiments.evaluation import make_evaluator
from experiments.run import Run, set_up_process
from genjax.data.dataset import train_batches

KERAS_PYTHON = flags.DEFINE_string("keras_python", sys.executable, "A Python with TensorFlow.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "TFDS data directory with MNIST.")
EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each contestant.")
SEED = flags.DEFINE_integer("seed", 0, "Of ours; Keras draws its own.")


class Keras:
    """The worker process, fed with the same arrays."""

    def __init__(self, run):
        folder = tempfile.TemporaryDirectory()
        paths = []
        for data in (run.train_data, run.eval_data):
            paths.append(os.path.join(folder.name, f"{data.split}.npy"))
            np.save(paths[-1], data.images)
        worker = str(Path(__file__).with_name("keras_vae.py"))
        self._process = subprocess.Popen(
            [KERAS_PYTHON.value, worker, *paths, str(run.config.batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        while (line := self._process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"{KERAS_PYTHON.value} cannot run {worker}")
        folder.cleanup()

    def ask(self, job):
        """Returns (seconds, value)."""
        self._process.stdin.write(job + "\n")
        self._process.stdin.flush()
        seconds, value = self._process.stdout.readline().split()
        return float(seconds), float(value)


class Ours:
    """The run's own compiled step, compiled on the first batches and then started afresh."""

    def __init__(self, run):
        self._run, self._step = run, 0
        self._batch_at = train_batches(run.train_data, run.config.batch_size, run.config.seed)
        self._train_step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
        self._evaluate = make_evaluator(run)
        self._state = run.parallel.init(run.init)
        self.train(2)
        self._state, self._step = run.parallel.init(run.init), 0

    def train(self, steps):
        """Returns the seconds that so many steps took."""
        began = time.perf_counter()
        for step in range(self._step, self._step + steps):
            batch = self._run.parallel.shard(self._batch_at(step))
            self._state, _ = self._train_step(self._state, batch)
        self._step += steps
        jax.block_until_ready(self._state)
        return time.perf_counter() - began

    def neg_elbo(self):
        tree = (self._state.eval_params, self._state.model_state)
        return self._evaluate(tree)["eval/neg_elbo_nats"]

    def draw(self):
        """Seconds to draw every figure, the 30x30 manifold among them."""
        index = np.arange(64)
        batch = self._run.eval_data.batch(index, index)
        batch["image"] = batch["image"].astype(np.float32) / 255
        params = self._run.parallel.to_local(self._state.eval_params)
        self._run.experiment.figures(params, {}, batch)  # compile
        began = time.perf_counter()
        self._run.experiment.figures(params, {}, batch)
        return time.perf_counter() - began


def main(_):
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = vae_mnist.get_config()
    config.data.data_dir = DATA_DIR.value
    config.data.pixels = "unit"
    config.seed = SEED.value
    run = Run.build(config)
    steps = len(run.train_data) // config.batch_size
    keras, ours = Keras(run), Ours(run)
    seconds = {"keras fit": [], "keras loop": [], "ours": []}
    for _ in range(EPOCHS.value):
        seconds["keras fit"].append(keras.ask("fit")[0])
        seconds["keras loop"].append(keras.ask("loop")[0])
        seconds["ours"].append(ours.train(steps))
    images = steps * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    draw = {"keras, 900 predicts": keras.ask("draw")[0], "ours": ours.draw()}
    result = {
        "images_per_second": rate,
        "ratio_to_fit": rate["ours"] / rate["keras fit"],
        "ratio_to_loop": rate["ours"] / rate["keras loop"],
        "test_neg_elbo_nats": {
            "keras fit": keras.ask("test fit")[1],
            "keras loop": keras.ask("test loop")[1],
            "ours": ours.neg_elbo(),
        },
        "manifold_seconds": draw,
        "manifold_ratio": draw["keras, 900 predicts"] / draw["ours"],
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    app.run(main)
