"""Two contestants side by side: a compiled step of ours, and Keras in another interpreter."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments.evaluation import make_evaluator
from genjax.data.dataset import train_batches

KERAS_PYTHON = flags.DEFINE_string("keras_python", sys.executable, "A Python with TensorFlow.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "TFDS data directory.")
EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each contestant.")
SEED = flags.DEFINE_integer("seed", 0, "Of ours; Keras draws its own.")


class Keras:
    """A worker process, `<worker>.py` beside this file, fed with the arrays of a run."""

    def __init__(self, worker, run):
        folder = tempfile.TemporaryDirectory()
        paths = []
        for data in (run.train_data, run.eval_data):
            paths.append(os.path.join(folder.name, f"{data.split}.npy"))
            np.save(paths[-1], data.images)
            np.save(f"{paths[-1]}.labels.npy", data.labels)
        worker = str(Path(__file__).with_name(f"{worker}.py"))
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
        self.state = run.parallel.init(run.init)
        self.train(2)
        self.state, self._step = run.parallel.init(run.init), 0

    def train(self, steps):
        """Returns the seconds that so many steps took."""
        began = time.perf_counter()
        for step in range(self._step, self._step + steps):
            batch = self._run.parallel.shard(self._batch_at(step))
            self.state, _ = self._train_step(self.state, batch)
        self._step += steps
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def evaluate(self):
        """The numbers of the evaluation split."""
        return self._evaluate(self._run.eval_tree(self.state))[0]
