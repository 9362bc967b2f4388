"""The two contestants of a comparison with Keras, which take turns: Keras in another interpreter,
and our compiled train step."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from genjax.data.dataset import train_batches
from genjax.files import user_path
from genjax.runner.evaluator import Evaluator
from genjax.runner.run import Run

KERAS_PYTHON = flags.DEFINE_string("keras_python", sys.executable, "A Python with TensorFlow.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "TFDS data directory.")
EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each contestant.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of our run; Keras draws its own.")


class Keras:
    """A worker process, `<worker>.py` in this folder, with the data of a run.

    Args:
      worker: its name.
      run: whose data and batch size it gets.
    """

    def __init__(self, worker: str, run: Run):
        script = str(Path(__file__).with_name(f"{worker}.py"))
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for data in (run.train_data, run.eval_data):
                paths.append(f"{folder}/{data.split}.npy")
                np.save(paths[-1], data.images)
                np.save(f"{paths[-1]}.labels.npy", data.labels)
            python = user_path(KERAS_PYTHON.value, "--keras_python")
            self._process = subprocess.Popen(
                [
                    str(python),
                    script,
                    *paths,
                    str(run.config.batch_size),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            while (line := self._process.stdout.readline()).strip() != "ready":
                if not line:
                    raise SystemExit(f"{KERAS_PYTHON.value} cannot run {script}")

    def run(self, job: str) -> tuple[float, float]:
        """Runs a job, see the worker; returns (seconds, value)."""
        self._process.stdin.write(job + "\n")
        self._process.stdin.flush()
        seconds, value = self._process.stdout.readline().split()
        return float(seconds), float(value)

    def seconds(self, job: str) -> float:
        """Runs a job; returns the seconds that it took."""
        return self.run(job)[0]


class Ours:
    """The compiled step of a run, compiled on the first batches and then started again.

    Args:
      run: that is trained.

    Attributes:
      state: the train state on the devices.
    """

    def __init__(self, run: Run):
        self._run, self._step = run, 0
        self._batch_at = train_batches(run.train_data, run.config.batch_size, run.config.seed)
        self._train_step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
        self._evaluator = Evaluator(run)
        self.state = run.start()
        self.train(2)
        self.state, self._step = run.start(), 0

    def train(self, steps: int) -> float:
        """Makes some steps; returns the seconds that they took."""
        start = time.perf_counter()
        for step in range(self._step, self._step + steps):
            batch = self._run.parallel.shard(self._batch_at(step))
            self.state, _ = self._train_step(self.state, batch)
        self._step += steps
        jax.block_until_ready(self.state)
        return time.perf_counter() - start

    def evaluate(self) -> dict[str, float]:
        """Returns the numbers of the evaluation split."""
        return self._evaluator(self._run.eval_tree(self.state))[0]
