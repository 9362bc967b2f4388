"""Which of the dispatched steps are known to be finite."""

import collections

import jax
import numpy as np

from genjax.runner.run import Run
from genjax.runner.terminal import say, warn
from genjax.train.guard import NotFinite

# Dispatches under way before the numbers of the oldest are fetched: waiting for the newest would
# leave the device idle.
DISPATCHES_AHEAD = 2


class HealthQueue:
    """The health of dispatched steps, fetched late.

    Args:
      run: whose steps they are; its config says what a step that is not finite means.

    Attributes:
      stop_requested: whether a process asked to stop in a step that was checked.
    """

    def __init__(self, run: Run):
        self._run, self._policy = run, run.config.nonfinite
        self._under_way: collections.deque = collections.deque()
        self._bad_in_a_row = 0
        self.stop_requested = False

    def add(self, step: int, indices: list[np.ndarray], health: jax.Array) -> None:
        """Adds a dispatch, and checks all but the newest few.

        Args:
          step: steps done after it.
          indices: dataset indices of each of its batches.
          health: of `TrainStep`, [names + 1], or stacked for several steps.
        """
        self._under_way.append((step - len(indices), indices, health))
        self.check(DISPATCHES_AHEAD)

    def check(self, ahead: int = 0) -> None:
        """Checks the health of all dispatches but the newest `ahead`.

        Raises:
          NotFinite: a step was not finite, and config.nonfinite does not let it pass.
        """
        while len(self._under_way) > ahead:
            step, indices, health = self._under_way.popleft()
            health = np.atleast_2d(self._run.parallel.fetch(health))
            self.stop_requested |= bool(health[:, -1].any())
            for done, (flags, index) in enumerate(zip(health[:, :-1], indices, strict=True), 1):
                self._check_step(step + done, flags, index)

    def _check_step(self, step: int, flags: np.ndarray, index: np.ndarray) -> None:
        if flags.all():
            self._bad_in_a_row = 0
            return
        names = [n for n, ok in zip(self._run.health_names, flags, strict=True) if not ok]
        problem = NotFinite(step, names, index)
        self._bad_in_a_row += 1
        if self._policy.policy != "skip" or self._bad_in_a_row > self._policy.limit:
            raise problem
        say(f"{problem}; its update is left out")

    def clear(self) -> None:
        """Forgets dispatches that were not checked: their states are given up."""
        self._under_way.clear()


class SkippedSteps:
    """Says how many steps `config.optim.skip_norm` left out, whenever metrics are written.

    Args:
      skip_norm: 0 for a run that leaves none out: nothing is said.
      step, skipped: steps done, and left out of these, where the run starts or continues.
    """

    def __init__(self, skip_norm: float | int, step: int, skipped: int):
        self._skip_norm, self._step, self._skipped = skip_norm, step, skipped

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Takes the metrics of a step, and says what was left out since the last ones."""
        if not self._skip_norm:
            return
        skipped = int(metrics["train/skipped_steps"])
        if skipped > self._skipped:
            warn(
                f"{skipped - self._skipped} of the steps {self._step + 1} to {step} are left out, "
                f"{skipped} in all: gradients not finite, or above "
                f"config.optim.skip_norm={self._skip_norm}"
            )
        self._step, self._skipped = step, skipped
