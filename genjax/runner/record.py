"""What a training run leaves of its course: log, progress, profile, speed."""

import contextlib
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genjax.runner.health import SkippedSteps
from genjax.runner.run import Run
from genjax.runner.steps import Steps
from genjax.runner.terminal import say
from genjax.runner.workdir import open_log
from genjax.train import logs
from genjax.train.parallel import is_main


class Record(contextlib.AbstractContextManager):
    """Writes the metrics of steps, shows the progress, profiles and times; to be used as a context.

    Args:
      run: what is trained.
      workdir: where the log and the profile go.
      steps: the compiled steps, whose costs stand beside the speed.
      step, skipped: steps done, and left out of these, where the run starts or continues.
    """

    def __init__(self, run: Run, workdir: Path, steps: Steps, step: int, skipped: int):
        config = run.config
        self._run, self._workdir, self._steps, self._start = run, workdir, steps, step
        self._first_step_seconds: float | None = None
        self._skipped = SkippedSteps(config.optim.skip_norm, step, skipped)
        self._progress = logs.Progress(
            step, config.num_train_steps, config.batch_size, quiet=not is_main()
        )
        self._profiler = logs.Profiler(workdir / "profile", **config.profile.to_dict())
        self.log = open_log(workdir, step)
        self._began = time.perf_counter()

    def __exit__(self, *error: Any) -> None:
        with contextlib.ExitStack() as stack:  # closes all of them, whatever one raises
            for part in (self._progress, self._profiler, self.log):
                stack.callback(part.close)

    def reopen(self, step: int) -> None:
        """Goes back to `step`: what the log has of later ones is given up."""
        self.log.close()
        self.log = open_log(self._workdir, step)

    def before_dispatch(self, step: int) -> None:
        """Begins or ends the profile, if that is due after `step` steps."""
        self._profiler.update(step - self._start)

    def after_dispatch(self, step: int, state: Any) -> None:
        """Waits for the first dispatch, and starts the clock behind it."""
        if self._first_step_seconds is None:
            jax.block_until_ready(state)
            self._first_step_seconds = time.perf_counter() - self._began
            if costs := self._steps.description():
                say(costs)
            self._progress.restart(step)

    def show(self, step: int) -> None:
        """Shows that `step` steps are done."""
        self._progress.update(step)

    def write(self, step: int, metrics: dict[str, jax.Array], **more: float) -> None:
        """Writes the training metrics of a step, still on the devices, and its speed."""
        fetched = self._run.parallel.fetch(metrics)
        values = {k: float(np.ravel(v)[-1]) for k, v in fetched.items()} | more
        values = {f"train/{name}": value for name, value in values.items()}
        self._skipped.update(step, values)
        self.log.write(step, values)
        self._progress.update(step, values)
        rate = self._progress.images_per_second
        speed = {"images_per_second": rate, **self._steps.costs(rate)}
        self.log.write_events(step, {f"time/{name}": value for name, value in speed.items()})

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Stops the clock for the length of a block."""
        return self._progress.paused()

    def speed(self) -> dict[str, float]:
        """Returns what the report says of speed and costs."""
        rate = self._progress.images_per_second
        first = {"first_step_seconds": self._first_step_seconds}
        return {"images_per_second": rate, **first, **self._steps.costs(rate)}
