"""Trains what a config describes, in a workdir, for every family; running it again resumes."""

import collections
import contextlib
import functools
import json
import math
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import (
    make_drawer,
    make_whole_evaluator,
    protocol_of,
    provenance_of,
    samples_png,
    save_figures,
    say_report,
    through_training,
)
from experiments.run import Run, completed, hook, say, warn
from experiments.workdir import (
    check_config,
    check_data,
    check_folder,
    check_restored,
    open_checkpoints,
    write_config,
)
from genjax import files, plots
from genjax.data.dataset import train_batches
from genjax.errors import RunError, UserError
from genjax.train import logs
from genjax.train.guard import NotFinite
from genjax.train.lock import locked
from genjax.train.loop import train_loop
from genjax.train.parallel import agreed, from_main, in_main, is_main
from genjax.train.signals import StopOnSignal

# Dispatches that may be under way before the numbers of the oldest are looked at: waiting for the
# newest would leave the device idle.
DISPATCHES_AHEAD = 2


class Stopped(Exception):
    """A signal ended the training early; everything is saved.

    Attributes:
      step: the step that was saved.
    """

    def __init__(self, step):
        super().__init__(step)
        self.step = step


def train(config, workdir, source):
    """Trains, evaluates and draws; running it again resumes.

    Args:
      config: a resolved ConfigDict.
      workdir: where everything goes, see the README.
      source: {"config_file": "configs/x.py:arg", "arguments": those of launch.py} for the records.

    Returns:
      The final report, a dict, or None when a signal stopped the run early.
    """
    with StopOnSignal() as signals:
        # Processes stop together, at a step: one that left early would break the others.
        signals.something_to_save = jax.process_count() > 1
        try:
            if config.num_seeds > 1:
                return _train_seeds(config, Path(workdir), source, signals)
            return _train_family(config, Path(workdir), source, signals)
        except Stopped as stop:
            by = signals.received or "another process's signal"
            say(f"stopped by {by} at step {stop.step}, saved; the same command resumes")
            return None


def _train_family(config, workdir, source, signals):
    train_one = functools.partial(_train, signals=signals)
    family_train = hook(config, "train")
    if family_train:
        return family_train(config, workdir, source, train_one)
    return train_one(completed(config), workdir, source)


def _train(config, workdir, source, signals):
    began = time.perf_counter()
    check_folder(workdir)
    resumes = check_config(workdir, config)
    run = Run.build(config)
    check_data(workdir, run)
    provenance = provenance_of(run, source)
    shapes = jax.eval_shape(run.init)
    num_parameters = logs.count_parameters(shapes.params)

    with contextlib.ExitStack() as held:
        in_main(lambda: held.enter_context(locked(workdir, say)))
        check_config(workdir, config)  # again: another run may have begun here since
        files.sweep(workdir)
        checkpoints = open_checkpoints(config, workdir)
        place = Place(run, checkpoints)
        if not checkpoints.empty():
            place.go_back()
            say(f"resuming {workdir} at step {place.step}")
        elif resumes:
            say(f"{workdir} has no checkpoint yet: starting from step 0")
        if place.step > config.num_train_steps:
            raise UserError(
                f"{workdir} is at step {place.step} already, past config.num_train_steps="
                f"{config.num_train_steps}"
            )
        report = workdir / "report.json"
        if place.step == config.num_train_steps and report.exists():
            report = files.read_json(report)
            if report and report["step"] == place.step:
                say(f"{workdir} is complete; --mode=eval computes its numbers again")
                return report

        def describe():
            write_config(workdir, run, source)
            files.write_text(workdir / "env.txt", logs.environment(sys.argv))

        in_main(describe)
        if place.step == 0:
            say(logs.parameter_table(shapes.params))
        try:
            metrics, speed = fit(run, place, workdir, provenance, signals)
        except BaseException:
            with contextlib.suppress(RunError):  # the first trouble is the one to tell
                checkpoints.close()
            raise
        report = {
            **provenance,
            "step": place.step,
            **metrics,
            "protocol": protocol_of(run),
            "num_parameters": num_parameters,
            **speed,
            "seconds": time.perf_counter() - began,
            "devices": f"{run.parallel.size} x {run.parallel.devices[0].device_kind}",
        }
        if run.experiment.export:
            tree = run.parallel.to_local(run.eval_tree(place.state))
            in_main(lambda: run.experiment.export(*tree, workdir))
        if is_main():
            files.write_json(workdir / "report.json", report)
            pictures = {"curves": plots.curves(logs.read_metrics(workdir / "metrics.jsonl"))}
            shape = run.experiment.sample_shape or config.data.image_shape
            pictures["through_training"] = through_training(workdir, shape)
            told = {**provenance, "step": place.step}
            drawn = {name: picture for name, picture in pictures.items() if picture is not None}
            save_figures(workdir / "figures", drawn, told)
        say_report(workdir, report)
        return report


class Place:
    """Where a run is: its state on the devices, its step, and which data come next.

    Attributes:
      state, step: the train state on the devices, the steps done.
      data_offset: the data of step s are `batch(s + data_offset)`; rolling back moves past data.
      rollbacks: how often that happened.
    """

    def __init__(self, run, checkpoints):
        self._run, self.checkpoints = run, checkpoints
        self.state, self.step, self.data_offset, self.rollbacks = None, 0, 0, 0

    def begin(self):
        """Puts the initial state on the devices, unless there is one."""
        if self.state is None:
            self.state = self._run.begin()

    def go_back(self):
        """To the newest good checkpoint, or to the beginning."""
        self.state, self.step = None, 0
        if not self.checkpoints.empty():
            state, meta = self.checkpoints.restore(self._run.template())
            check_restored(self.checkpoints.directory, meta, self._run)
            extra, self.step = meta["extra"], int(state.step)
            self.state = self._run.whole(self._run.parallel.from_global(state))
            self.data_offset, self.rollbacks = extra["data_offset"], extra["rollbacks"]

    def roll_back(self, problem):
        """Like `go_back`, and never again to the data up to the step of a `NotFinite`."""
        offset, rollbacks = self.data_offset, self.rollbacks + 1
        self.go_back()
        self.data_offset = offset + problem.step - self.step
        self.rollbacks = rollbacks

    def save(self, metrics):
        state = self._run.parallel.to_global(self._run.saved(self.state))
        extra = {"data_offset": self.data_offset, "rollbacks": self.rollbacks}
        if self._run.experiment.frozen:
            extra["frozen"] = self._run.experiment.frozen
        config = json.loads(self._run.config.to_json())
        finite = {k: v for k, v in (metrics or {}).items() if math.isfinite(v)}
        self.checkpoints.save(self.step, state, config, finite, extra)


def fit(run, place, workdir, provenance, signals):
    """Trains from `place` to the end and leaves it there, saved.

    Returns:
      (newest evaluation, speed for the report).

    Raises:
      Stopped: a signal came; everything is saved.
      RunError: numbers that are not finite, or a checkpoint or log that could not be written.
    """
    config, parallel, policy = run.config, run.parallel, run.config.nonfinite.policy
    batch_at = train_batches(
        run.train_data,
        config.batch_size,
        config.seed,
        rows=parallel.rows(config.batch_size),
        num_workers=config.data.num_workers,
        stop=None if policy == "rollback" else config.num_train_steps,
    )
    place.begin()
    resident = ()
    if config.data.on_device:
        whole = {"image": run.train_data.images, "label": run.train_data.labels}
        resident = (parallel.replicate(jax.tree.map(jnp.asarray, whole)),)
    compiled = {
        count: parallel.compile_train_step(
            run.train_step, jax.eval_shape(run.init), count, resident=bool(resident)
        )
        for count in {1, run.steps_per_call}
    }

    def open_log():
        return logs.MetricLog(workdir, place.step, warn) if is_main() else logs.NoLog()

    evaluator, draw = make_whole_evaluator(run), make_drawer(run, workdir, provenance)
    log = open_log()
    progress = logs.Progress(place.step, config.num_train_steps, config.batch_size, not is_main())
    profiler = logs.Profiler(workdir / "profile", **config.profile.to_dict())
    first_step = place.step
    latest = {"eval": None, "first_step_seconds": None}
    underway = collections.deque()  # (step, indices of the examples, health) not yet looked at
    asked = {"stop": False}
    bad_in_a_row = [0]
    began = time.perf_counter()

    def host_batch(step):
        batch = batch_at(step + place.data_offset)
        kept = {k: batch[k] for k in ("index", "slot")} if resident else batch
        if jax.process_count() > 1:
            kept["stop"] = np.full(len(batch["index"]), signals.stop(step))
        return kept

    def run_steps(state, step, count):
        profiler.update(step - first_step)
        batches = [host_batch(s) for s in range(step, step + count)]
        if count == 1:
            batch = parallel.shard(batches[0])
        else:
            batch = jax.tree.map(lambda *x: np.stack(x), *batches)
            batch = parallel.shard(batch, stacked=True)
        state, (metrics, health) = compiled[count](state, batch, *resident)
        underway.append((step, [b["index"] for b in batches], health))
        settle(DISPATCHES_AHEAD)
        signals.something_to_save = True
        if latest["first_step_seconds"] is None:
            jax.block_until_ready(state)
            latest["first_step_seconds"] = time.perf_counter() - began
            progress.restart(step + count)
        return state, metrics

    def settle(ahead=0):
        """Looks at the health of all steps but the newest few."""
        while len(underway) > ahead:
            step, indices, health = underway.popleft()
            health = np.atleast_2d(parallel.fetch(health))
            asked["stop"] |= bool(health[:, -1].any())
            for done, (flags, index) in enumerate(zip(health[:, :-1], indices, strict=True), 1):
                if flags.all():
                    bad_in_a_row[0] = 0
                    continue
                names = [n for n, ok in zip(run.health_names(), flags, strict=True) if not ok]
                problem = NotFinite(step + done, names, index)
                bad_in_a_row[0] += 1
                if policy != "skip" or bad_in_a_row[0] > config.nonfinite.limit:
                    raise problem
                say(f"{problem}; its update is left out")

    def should_stop(step):
        # With several processes the question rides in the step, so that all stop at the same one.
        return asked["stop"] if jax.process_count() > 1 else signals.stop(step)

    def write(step, metrics):
        place.checkpoints.poll()
        if metrics is None:
            return progress.update(step)
        settle(1)  # all that is under way but the newest, which came after `step`
        values = {f"train/{k}": float(np.ravel(v)[-1]) for k, v in parallel.fetch(metrics).items()}
        if policy == "rollback":
            values["train/rollbacks"] = place.rollbacks
        log.write(step, values)
        progress.update(step, values)
        log.write_events(step, {"time/images_per_second": progress.images_per_second})

    def evaluate(step, state):
        with progress.paused():
            found = evaluator(run.eval_tree(state), step == config.num_train_steps, should_stop_now)
        if found is None:
            return None
        metrics, pictures = found
        save_figures(workdir / "figures", pictures, {**provenance, "step": step})
        wrong = [k for k, v in metrics.items() if not math.isfinite(v)]
        if wrong:
            text = f"step {step}: not finite: {', '.join(wrong)}"
            if policy == "raise":
                raise RunError(f"{text} (with config.nonfinite.policy=skip the run goes on)")
            warn(text)
        latest["eval"] = metrics
        log.write(step, metrics)
        place.checkpoints.score(step, metrics)
        return metrics

    def draw_pictures(step, state):
        with progress.paused():
            return draw(step, state, log, should_stop_now)

    def should_stop_now():
        return signals.received is not None

    def save(step, state, metrics):
        place.state, place.step = state, step
        if agreed(log.flush()):  # a checkpoint must not be ahead of the metrics
            place.save(metrics)

    missed = _missed(run, place.step, workdir)
    with contextlib.ExitStack() as stack:
        for thing in (batch_at, progress, profiler):
            stack.enter_context(contextlib.closing(thing))
        stack.callback(lambda: log.close())
        while True:
            try:
                place.state, place.step, stopped = train_loop(
                    place.state,
                    place.step,
                    run.cadence,
                    run.steps_per_call,
                    run_steps,
                    settle,
                    write,
                    evaluate,
                    draw_pictures,
                    save,
                    should_stop,
                    missed,
                )
                break
            except NotFinite as problem:
                if policy != "rollback" or place.rollbacks >= config.nonfinite.limit:
                    raise
                underway.clear()
                problem.__traceback__ = None  # it would keep the old state on the devices
                place.roll_back(problem)
                place.begin()
                log.close()
                log = open_log()
                say(f"{problem}; back to step {place.step}, and on with later data")
                missed = ()
    place.checkpoints.close()
    if stopped:
        raise Stopped(place.step)
    signals.something_to_save = jax.process_count() > 1
    if latest["eval"] is None:  # nothing was left to train
        latest["eval"], _ = evaluator(run.eval_tree(place.state), last=True)
    speed = {
        "images_per_second": progress.images_per_second,
        "first_step_seconds": latest["first_step_seconds"],
    }
    return latest["eval"], speed if place.step > first_step else {}


def _missed(run, step, workdir):
    """What a run that was stopped at `step` had no time for."""
    if step == 0:
        return ()
    lines = logs.read_metrics(workdir / "metrics.jsonl") if is_main() else []
    evaluated = any(
        line["step"] == step and any(k.startswith("eval/") for k in line) for line in lines
    )
    drawn = is_main() and samples_png(workdir, step).exists()
    cadence = run.cadence
    missed = []
    if cadence.due(cadence.eval_every_steps, step) and not from_main(int(evaluated)):
        missed.append("evaluate")
    due = run.experiment.sample and cadence.due(cadence.sample_every_steps, step)
    if due and not from_main(int(drawn)):
        missed.append("draw")
    return tuple(missed)


def _train_seeds(config, workdir, source, signals):
    """The same run with seeds seed, seed + 1, ...; mean and standard deviation of every number."""
    reports = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        one = config.copy_and_resolve_references()
        one.seed, one.num_seeds = seed, 1
        reports.append(_train_family(one, workdir / f"seed_{seed}", source, signals))
    summary = {**source, "num_seeds": len(reports)}
    for key in reports[0]:
        if key.startswith("eval/"):
            values = [r[key] for r in reports]
            summary[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "values": values,
            }
    if is_main():
        files.write_json(workdir / "report.json", summary)
    say(json.dumps(summary, indent=1))
    return summary
