"""The training of one run, from restoring or initialising to the report.

`train_run` restores the newest checkpoint or initialises, runs the loop (`Trainer`), and writes the
report. From the loop to a loss there are six frames in three files:

  Trainer.loop           here                        takes the batch of a step, calls the step
  TrainStep.__call__     genjax/train/step.py        (compiled) guards against NaN
  TrainStep.advance                                  prepares the images
  LossUpdate.__call__                                optimizer, moving average
  LossUpdate._gradients                              value_and_grad
  Vae.loss               experiments/vae/vae.py      the loss of the family

The order at a step is a contract that exact resume rests on: write the metrics, evaluate, draw,
save, take the next batch, step. Everything that a checkpoint's step leaves behind is on disk before
the checkpoint is, and nothing is evaluated, drawn or saved before all its steps are known to be
finite. A stop saves first: what was due at its step is made up for when the run continues.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax import files
from genjax.errors import RunError
from genjax.plots import PixelsNotFinite
from genjax.runner.batches import Batches
from genjax.runner.evaluator import FullEvaluator, check_finite
from genjax.runner.figures import Drawer, save_figures
from genjax.runner.health import HealthQueue
from genjax.runner.position import Position
from genjax.runner.provenance import provenance_of
from genjax.runner.record import Record
from genjax.runner.report import finish, finished_report
from genjax.runner.run import Run
from genjax.runner.steps import Steps
from genjax.runner.terminal import say, warn
from genjax.runner.workdir import (
    check_data,
    check_folder,
    check_workdir,
    missed_at,
    open_checkpoints,
    write_config,
)
from genjax.train import logs
from genjax.train.guard import NotFinite
from genjax.train.lock import locked
from genjax.train.parallel import agreed, in_main
from genjax.train.signals import StopOnSignal, Stopped


def train_run(
    config: ConfigDict, workdir: Path, source: dict[str, str], signals: StopOnSignal
) -> dict[str, Any]:
    """Trains one run from its newest checkpoint, or from the start, to its report.

    Args:
      config: finished, of one seed.
      workdir: where everything goes.
      source: as in `genjax.runner.train.train`.
      signals: asked at every step whether to stop.

    Raises:
      Stopped: a signal came; everything is saved.
      UserError: one line; nothing is lost.
    """
    began = time.perf_counter()
    check_folder(workdir)
    exists = check_workdir(workdir, config)
    run = Run.build(config)
    check_data(workdir, run)
    with contextlib.ExitStack() as stack:
        in_main(lambda: stack.enter_context(locked(workdir, say)))
        check_workdir(workdir, config)  # again: another run may have started here since
        files.sweep(workdir)
        position = Position(run, open_checkpoints(config, workdir))
        if not position.checkpoints.empty():
            position.restore()
            say(f"resuming {workdir} at step {position.step}")
        elif exists:
            say(f"{workdir} has no checkpoint yet: starting from step 0")
        report = finished_report(workdir, position.step, config.num_train_steps)
        if report:
            return report

        def write_records():
            write_config(workdir, run, source)
            files.write_text(workdir / "env.txt", logs.environment(sys.argv))

        in_main(write_records)
        if position.step == 0:
            say(logs.parameter_table(jax.eval_shape(run.init).params))
        trainer = Trainer(run, position, workdir, provenance_of(run, source), signals)
        try:
            metrics, speed = trainer.train()
        except BaseException:
            with contextlib.suppress(RunError):  # the first error is the one to report
                position.checkpoints.close()
            raise
        speed = {**speed, "seconds": time.perf_counter() - began}
        return finish(run, position, workdir, trainer.provenance, metrics, speed)


class Trainer:
    """The training loop of one run and what it needs at every step.

    Args:
      run: what is trained.
      position: where it is; trained to the end, saved.
      workdir: where logs and pictures go.
      provenance: what pictures record about where they come from.
      signals: asked at every step.
    """

    def __init__(
        self,
        run: Run,
        position: Position,
        workdir: Path,
        provenance: dict[str, Any],
        signals: StopOnSignal,
    ):
        self.run, self.position, self.workdir, self.signals = run, position, workdir, signals
        self.provenance, self.cadence = provenance, run.cadence
        self.evaluator, self.drawer = FullEvaluator(run), Drawer(run, workdir, provenance)
        self.first_step = position.step
        self.eval_metrics: dict[str, float] | None = None  # of the newest evaluation

    def train(self) -> tuple[dict[str, float], dict[str, float]]:
        """Trains to the end.

        Returns:
          (metrics of the last evaluation, speed for the report; {} where no step was left).

        Raises:
          Stopped: a signal came; everything is saved.
          RunError: numbers that are not finite, or a checkpoint or log that could not be written.
        """
        position = self.position
        position.initialise()
        self.health, self.steps = HealthQueue(self.run), Steps(self.run)
        skipped = int(np.ravel(self.run.parallel.fetch(position.state.skipped))[0])
        record = Record(self.run, self.workdir, self.steps, position.step, skipped)
        with (
            record as self.record,
            contextlib.closing(Batches(self.run, self.signals)) as self.batches,
        ):
            finished = self._loop_with_rollbacks()
        position.checkpoints.close()
        if not finished:
            raise Stopped(position.step)
        self.signals.something_to_save = jax.process_count() > 1
        if self.eval_metrics is None:  # there was no step left to train
            self.eval_metrics, _ = self.evaluator(self.run.eval_tree(position.state), last=True)
        return self.eval_metrics, record.speed() if position.step > self.first_step else {}

    def _loop_with_rollbacks(self) -> bool:
        """Runs the loop; on numbers that are not finite goes back, as the config allows."""
        position, limit = self.position, self.run.config.nonfinite.limit
        missed = missed_at(self.run, position.step, self.workdir)
        while True:
            try:
                return self.loop(missed)
            except NotFinite as problem:
                policy = self.run.config.nonfinite.policy
                if policy != "rollback" or position.rollbacks >= limit:
                    raise
                self.health.clear()
                problem.__traceback__ = None  # it would keep the old state on the devices
                position.roll_back(problem)
                position.initialise()
                self.record.reopen(position.step)
                say(f"{problem}; back to step {position.step}, continuing with later data")
                missed = ()

    # ---- The loop ----

    def loop(self, missed: tuple[str, ...] = ()) -> bool:
        """Trains from the current step to the last one; see the module for the order.

        Args:
          missed: which of "evaluate" and "draw" the current step still lacks.

        Returns:
          Whether the end was reached; False after a stop.
        """
        position, cadence, per_call = self.position, self.cadence, self.run.steps_per_call
        if "evaluate" in missed and self.evaluate() is None:
            return False
        if "draw" in missed and not self.draw():
            return False
        unwritten = None  # metrics on the device, of a step that is due in the log
        while position.step < cadence.num_train_steps:
            step = position.step
            full = step % per_call == 0 and step + per_call <= cadence.num_train_steps
            count = per_call if full else 1
            self.record.before_dispatch(step)
            batch, indices = self.batches.take(step + position.data_offset, step, count)
            position.state, (metrics, health) = self.steps[count](position.state, *batch)
            position.step = step = step + count
            self.after_dispatch(indices, health)
            # The metrics of a step are fetched after the next one was dispatched, so that logging
            # does not stall the device.
            if unwritten is not None:
                self.write(*unwritten)
                unwritten = None
            if cadence.due(cadence.log_every_steps, step):
                unwritten = (step, metrics)
            else:
                self.write(step, None)
            stop = self.should_stop()
            evaluates = cadence.due(cadence.eval_every_steps, step)
            draws = cadence.due(cadence.sample_every_steps, step)
            saves = cadence.due(cadence.checkpoint_every_steps, step)
            if stop or evaluates or draws or saves:
                self.health.check()
                if unwritten is not None:
                    self.write(*unwritten)
                    unwritten = None
            eval_metrics = None
            if evaluates and not stop:
                eval_metrics = self.evaluate()
                stop = eval_metrics is None
            if draws and not stop:
                stop = not self.draw()
            if saves or stop:
                self.save(eval_metrics)
            if stop:
                return False
        return True

    def after_dispatch(self, indices: list[np.ndarray], health: jax.Array) -> None:
        """Notes a dispatched step, and checks the health of all but the newest few."""
        self.health.add(self.position.step, indices, health)
        self.signals.something_to_save = True
        self.record.after_dispatch(self.position.step, self.position.state)

    def should_stop(self) -> bool:
        """Returns whether to stop after this step."""
        # With several processes the question is part of the step: all stop at the same one.
        if jax.process_count() > 1:
            return self.health.stop_requested
        return self.signals.stop(self.position.step)

    def write(self, step: int, metrics: dict[str, jax.Array] | None) -> None:
        """Writes the metrics of a step to the log; None: only shows the progress."""
        self.position.checkpoints.poll()
        if metrics is None:
            return self.record.show(step)
        self.health.check(ahead=1)  # all dispatched steps but the newest, which came after `step`
        rolls_back = self.run.config.nonfinite.policy == "rollback"
        more = {"rollbacks": self.position.rollbacks} if rolls_back else {}
        self.record.write(step, metrics, **more)

    def evaluate(self) -> dict[str, float] | None:
        """Evaluates and saves the figures; returns the metrics, or None if a stop cut it short."""
        step = self.position.step
        tree, last = self.run.eval_tree(self.position.state), step == self.cadence.num_train_steps
        with self.record.paused():
            found = self.evaluator(tree, last, self._signalled)
        if found is None:
            return None
        metrics, pictures = found
        save_figures(self.workdir / "figures", pictures, {**self.provenance, "step": step})
        check_finite(step, metrics, self.run.config.nonfinite.policy)
        self.eval_metrics = metrics
        self.record.log.write(step, metrics)
        self.position.checkpoints.score(step, metrics)
        return metrics

    def draw(self) -> bool:
        """Draws samples and figures; returns False if a stop cut it short."""
        step, state = self.position.step, self.position.state
        with self.record.paused():
            try:
                return self.drawer(step, state, self.record.log, self._signalled)
            except PixelsNotFinite as error:  # steps are not given up for a picture
                warn(f"step {step}: {error}")
                return True

    def save(self, metrics: dict[str, float] | None) -> None:
        """Saves a checkpoint with the metrics of an evaluation at this step, if there was one."""
        if agreed(self.record.log.flush()):  # a checkpoint must not be ahead of the metrics
            self.position.save(metrics)

    def _signalled(self) -> bool:
        return self.signals.received is not None
