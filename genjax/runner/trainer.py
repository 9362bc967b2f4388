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
from genjax.runner.health import HealthQueue, SkippedSteps
from genjax.runner.position import Position
from genjax.runner.provenance import provenance_of
from genjax.runner.report import finish, finished_report
from genjax.runner.run import Run
from genjax.runner.terminal import say, warn
from genjax.runner.workdir import (
    check_data,
    check_folder,
    check_workdir,
    missed_at,
    open_checkpoints,
    open_log,
    write_config,
)
from genjax.train import logs
from genjax.train.guard import NotFinite
from genjax.train.lock import locked
from genjax.train.parallel import agreed, in_main, is_main
from genjax.train.programs import CompiledStep, step_report
from genjax.train.signals import StopOnSignal


class Stopped(Exception):
    """A signal ended the training early; everything is saved.

    Attributes:
      step: the step that was saved.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


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
        self.first_step_seconds: float | None = None
        self.eval_metrics: dict[str, float] | None = None  # of the newest evaluation

    def train(self) -> tuple[dict[str, float], dict[str, float]]:
        """Trains to the end.

        Returns:
          (metrics of the last evaluation, speed for the report; {} where no step was left).

        Raises:
          Stopped: a signal came; everything is saved.
          RunError: numbers that are not finite, or a checkpoint or log that could not be written.
        """
        config, position = self.run.config, self.position
        position.initialise()
        self.health = HealthQueue(self.run)
        skipped = int(np.ravel(self.run.parallel.fetch(position.state.skipped))[0])
        self.skipped = SkippedSteps(self.run.config.optim.skip_norm, position.step, skipped)
        state = jax.eval_shape(self.run.init)
        compiled = lambda k: CompiledStep(
            self.run.parallel.compile_train_step(self.run.train_step, state, k)
        )
        self.steps = {count: compiled(count) for count in {1, self.run.steps_per_call}}
        with contextlib.ExitStack() as stack:
            open_until_end = lambda x: stack.enter_context(contextlib.closing(x))
            self.batches = open_until_end(Batches(self.run, self.signals))
            self.progress = open_until_end(
                logs.Progress(
                    position.step, config.num_train_steps, config.batch_size, not is_main()
                )
            )
            self.profiler = open_until_end(
                logs.Profiler(self.workdir / "profile", **config.profile.to_dict())
            )
            self.log = open_log(self.workdir, position.step)
            stack.callback(lambda: self.log.close())
            self._began = time.perf_counter()
            finished = self._loop_with_rollbacks()
        position.checkpoints.close()
        if not finished:
            raise Stopped(position.step)
        self.signals.something_to_save = jax.process_count() > 1
        if self.eval_metrics is None:  # there was no step left to train
            self.eval_metrics, _ = self.evaluator(self.run.eval_tree(position.state), last=True)
        if position.step == self.first_step:
            return self.eval_metrics, {}
        speed = {
            "images_per_second": self.progress.images_per_second,
            "first_step_seconds": self.first_step_seconds,
        }
        return self.eval_metrics, {**speed, **self.costs()}

    def costs(self) -> dict[str, float]:
        """Returns what the compiler says of a step on one device, and its use of that device."""
        rate = self.progress.images_per_second / self.run.config.batch_size
        device, per_call = self.run.parallel.devices[0], self.run.steps_per_call
        costs = dict(self.steps[per_call].costs or self.steps[1].costs)
        if self.steps[per_call].costs and device.platform == "cpu":
            # Elsewhere the steps of a dispatch are a loop, whose FLOPs are those of one pass.
            costs["flops"] = costs.get("flops", 0) / per_call
        return step_report(costs, rate, device.device_kind)

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
                self.log.close()
                self.log = open_log(self.workdir, position.step)
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
            self.profiler.update(step - self.first_step)
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
        if self.first_step_seconds is None:
            jax.block_until_ready(self.position.state)
            self.first_step_seconds = time.perf_counter() - self._began
            self.say_costs()
            self.progress.restart(self.position.step)

    def say_costs(self) -> None:
        """Says what a step costs, once it is compiled."""
        costs = self.costs()
        flops, memory = costs.get("step_flops"), costs.get("step_memory_bytes")
        said = [f"{flops / 1e9:,.4g} GFLOP"] * bool(flops)
        said += [f"{memory / 1e6:,.4g} MB of memory"] * bool(memory)
        if said:
            say(f"a step on one device: {', '.join(said)} (compiled)")

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
            return self.progress.update(step)
        self.health.check(ahead=1)  # all dispatched steps but the newest, which came after `step`
        fetched = self.run.parallel.fetch(metrics)
        values = {f"train/{k}": float(np.ravel(v)[-1]) for k, v in fetched.items()}
        if self.run.config.nonfinite.policy == "rollback":
            values["train/rollbacks"] = self.position.rollbacks
        self.skipped.update(step, values)
        self.log.write(step, values)
        self.progress.update(step, values)
        speed = {"images_per_second": self.progress.images_per_second, **self.costs()}
        self.log.write_events(step, {f"time/{name}": value for name, value in speed.items()})

    def evaluate(self) -> dict[str, float] | None:
        """Evaluates and saves the figures; returns the metrics, or None if a stop cut it short."""
        step = self.position.step
        tree, last = self.run.eval_tree(self.position.state), step == self.cadence.num_train_steps
        with self.progress.paused():
            found = self.evaluator(tree, last, self._signalled)
        if found is None:
            return None
        metrics, pictures = found
        save_figures(self.workdir / "figures", pictures, {**self.provenance, "step": step})
        check_finite(step, metrics, self.run.config.nonfinite.policy)
        self.eval_metrics = metrics
        self.log.write(step, metrics)
        self.position.checkpoints.score(step, metrics)
        return metrics

    def draw(self) -> bool:
        """Draws samples and figures; returns False if a stop cut it short."""
        step, state = self.position.step, self.position.state
        with self.progress.paused():
            try:
                return self.drawer(step, state, self.log, self._signalled)
            except PixelsNotFinite as error:  # steps are not given up for a picture
                warn(f"step {step}: {error}")
                return True

    def save(self, metrics: dict[str, float] | None) -> None:
        """Saves a checkpoint with the metrics of an evaluation at this step, if there was one."""
        if agreed(self.log.flush()):  # a checkpoint must not be ahead of the metrics
            self.position.save(metrics)

    def _signalled(self) -> bool:
        return self.signals.received is not None
