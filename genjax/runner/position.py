"""Where a run is: its state, its step, and its place in the order of the data."""

import functools
import json
import math
from typing import Any

from genjax.runner.run import Run
from genjax.runner.workdir import check_restored, describe_data
from genjax.train.checkpoint import Checkpoints
from genjax.train.guard import NotFinite
from genjax.train.state import TrainState


class Position:
    """The state of a run on the devices, and how it is saved and restored.

    Args:
      run: whose state it is.
      checkpoints: of its workdir.

    Attributes:
      state: the train state on the devices; None until `restore` or `initialise`.
      step: steps done.
      data_offset: the data of step s are batch s + data_offset; rolling back moves past data.
      rollbacks: how often that happened.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints):
        self._run, self.checkpoints = run, checkpoints
        self.state: TrainState | None = None
        self.step, self.data_offset, self.rollbacks = 0, 0, 0

    @functools.cached_property
    def _described_data(self) -> dict[str, Any]:
        return describe_data(self._run)

    def initialise(self) -> None:
        """Puts the initial state on the devices, unless there is a state already."""
        if self.state is None:
            self.state = self._run.start()

    def restore(self) -> None:
        """Goes to the newest good checkpoint; without any, to step 0 without a state."""
        self.state, self.step = None, 0
        if not self.checkpoints.empty():
            state, meta = self.checkpoints.restore(self._run.template())
            check_restored(self.checkpoints.directory, meta, self._run)
            extra, self.step = meta["extra"], int(state.step)
            self.state = self._run.full_state(self._run.parallel.from_global(state))
            self.data_offset, self.rollbacks = extra["data_offset"], extra["rollbacks"]

    def roll_back(self, problem: NotFinite) -> None:
        """Restores, and moves past the data up to the step of a problem: it is not used again."""
        offset, rollbacks = self.data_offset, self.rollbacks + 1
        self.restore()
        self.data_offset = offset + problem.step - self.step
        self.rollbacks = rollbacks

    def save(self, metrics: dict[str, float] | None) -> None:
        """Saves a checkpoint; `metrics` are those of an evaluation at this step, if any."""
        state = self._run.parallel.to_global(self._run.saved(self.state))
        extra = {
            "data_offset": self.data_offset,
            "rollbacks": self.rollbacks,
            "data": self._described_data,
        }
        if self._run.family.frozen:
            extra["frozen"] = self._run.family.frozen
        config = json.loads(self._run.config.to_json())
        finite = {k: v for k, v in (metrics or {}).items() if math.isfinite(v)}
        self.checkpoints.save(self.step, state, config, finite, extra)
