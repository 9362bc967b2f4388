"""The batches of a run as its compiled steps take them."""

from typing import Any

import jax
import numpy as np

from genjax.data.dataset import train_batches
from genjax.runner.datasets import resident
from genjax.runner.run import Run
from genjax.train.signals import StopOnSignal


class Batches:
    """Reads batches on the host and puts them on the devices.

    Where config.data.on_device keeps the whole dataset on the devices, batches are indices alone
    and the dataset is passed to the step. With several processes a batch carries the question
    whether this process asks to stop.

    Args:
      run: whose training data is read.
      signals: asked whether to stop.
    """

    def __init__(self, run: Run, signals: StopOnSignal):
        config, self._parallel, self._signals = run.config, run.parallel, signals
        rolls_back = config.nonfinite.policy == "rollback"  # then later data follows the last
        self._read = train_batches(
            run.train_data,
            config.batch_size,
            config.seed,
            rows=self._parallel.rows(config.batch_size),
            num_workers=config.data.num_workers,
            stop=None if rolls_back else config.num_train_steps,
        )
        self._dataset: tuple[Any, ...] = ()
        if config.data.on_device:
            self._dataset = (self._parallel.replicate(resident(run.train_data)),)

    def take(
        self, position: int, step: int, count: int
    ) -> tuple[tuple[Any, ...], list[np.ndarray]]:
        """Reads the batches of the next `count` steps.

        Args:
          position: of the first one in the order of the data.
          step: steps done.
          count: batches; several are stacked.

        Returns:
          (arguments of the compiled step after the state, dataset indices of each batch).
        """
        batches = [self._host_batch(position + i, step + i) for i in range(count)]
        if count == 1:
            batch = self._parallel.shard(batches[0])
        else:
            batch = jax.tree.map(lambda *x: np.stack(x), *batches)
            batch = self._parallel.shard(batch, stacked=True)
        return (batch, *self._dataset), [b["index"] for b in batches]

    def _host_batch(self, position: int, step: int) -> dict[str, np.ndarray]:
        batch = self._read(position)
        if self._dataset:
            batch = {k: batch[k] for k in ("index", "slot")}
        if jax.process_count() > 1:
            batch = {**batch, "stop": np.full(len(batch["index"]), self._signals.stop(step))}
        return batch

    def close(self) -> None:
        """Ends reading ahead."""
        self._read.close()
