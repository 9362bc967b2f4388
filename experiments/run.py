"""From a config and a workdir to a trained, evaluated and drawn model, for every family."""

import contextlib
import dataclasses
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import changed_keys, choose, flatten, validate
from genjax import plots, rng
from genjax.data.dataset import eval_batches, load_dataset, train_batches
from genjax.data.sources import cache_root, find_source, tfds_data_dir
from genjax.data.transforms import Transform
from genjax.errors import UserError
from genjax.train import logs
from genjax.train.checkpoint import Checkpoints
from genjax.train.loop import Cadence, StopOnSignal, train_loop
from genjax.train.optimizers import make_optimizer, make_schedule
from genjax.train.parallel import Parallel, keep_heap
from genjax.train.state import Ema, init_state, make_train_step

NUM_FIGURE_EXAMPLES = 64


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a family hands to the trainer: pure functions of images that `Transform` prepared.

    `experiments/<family>.py` defines `build(config, image_shape, num_classes, axis_name)`, which
    returns one. `axis_name` is for batch statistics under pmap, None under jit.

    Attributes:
      init: key -> (params, model_state).
      loss_fn: (params, model_state, batch, rngs, train) -> (loss, (metrics, model_state)).
      eval_fn: (params, model_state, batch, rngs) -> {name: values of each example, [B]}.
      sample: (params, model_state, keys [B]) -> images [B, H, W, C] in [0, 1]; row i of keys[i].
      figures: (params, model_state, batch) -> {name: uint8 picture [H, W, C]}; not compiled.
      make_train_step: (tx, ema, axis_name) -> train_step, where one loss is not enough (a game).
      init_opt: (tx, params) -> optimizer state, likewise.
    """

    init: Callable
    loss_fn: Callable | None
    eval_fn: Callable
    sample: Callable | None = None
    figures: Callable | None = None
    make_train_step: Callable | None = None
    init_opt: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a config stands for, built but not yet compiled."""

    config: object
    parallel: Parallel
    experiment: Experiment
    transform: Transform
    train_data: object
    eval_data: object
    cadence: Cadence
    steps_per_call: int
    train_step: Callable
    init: Callable  # () -> TrainState

    @classmethod
    def build(cls, config):
        """Builds a run; every mistake of the user's ends here, before anything is compiled."""
        parallel = Parallel.create(config.parallel, config.num_devices)
        validate(config, parallel.size)
        train_source = find_source(config.data.name, config.data.train_split, config.data.data_dir)
        eval_source = find_source(config.data.name, config.data.eval_split, config.data.data_dir)
        for source in (train_source, eval_source):
            if source.size < 1:
                raise UserError(f"dataset '{source.name}' has an empty split '{source.split}'")
        shape = tuple(config.data.image_shape)
        num_classes = len(train_source.class_names)
        family = _family(config.experiment)
        experiment = family.build(config, shape, num_classes, parallel.axis_name)
        transform = Transform(config.data.pixels, config.data.flip, config.data.crop_padding)

        optim = config.optim.to_dict()
        accumulate_steps, lr = optim.pop("accumulate_steps"), optim.pop("lr")
        schedule = make_schedule(
            lr, optim.pop("schedule"), optim.pop("warmup_steps"), config.num_train_steps
        )
        tx = make_optimizer(optim.pop("name"), schedule, **optim)
        ema = Ema(batch_size=config.batch_size, **config.ema.to_dict())
        init_opt = tx.init
        if experiment.init_opt:
            init_opt = lambda params: experiment.init_opt(tx, params)

        def make_step(axis_name):
            if experiment.make_train_step:
                step = experiment.make_train_step(tx, ema, axis_name)
            else:
                step = make_train_step(
                    experiment.loss_fn,
                    tx,
                    ema,
                    accumulate_steps=accumulate_steps,
                    axis_name=axis_name,
                )

            def train_step(state, batch):
                rngs = rng.Rngs(state.rng, state.step, batch["slot"])
                new_state, metrics = step(state, transform(batch, rngs, train=True))
                return new_state, {**metrics, "lr": jnp.asarray(schedule(state.step))}

            return train_step

        cadence = Cadence(*(getattr(config, f.name) for f in dataclasses.fields(Cadence)))
        steps_per_call = _steps_per_call(config.steps_per_call, cadence)
        # Compiled: one small program instead of a hundred, and no forward pass.
        init = jax.jit(lambda: init_state(config.seed, experiment.init, init_opt, ema))
        _check_shapes(config, experiment, transform, init, make_step(None), shape)
        return cls(
            config=config,
            parallel=parallel,
            experiment=experiment,
            transform=transform,
            train_data=load_dataset(train_source, shape),
            eval_data=load_dataset(eval_source, shape),
            cadence=cadence,
            steps_per_call=steps_per_call,
            train_step=make_step(parallel.axis_name),
            init=init,
        )


def _family(name):
    folder = Path(__file__).parent
    known = sorted(
        p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "run", "config")
    )
    if name not in known:
        raise UserError(f"config.experiment='{name}' is not a family; known: {', '.join(known)}")
    return importlib.import_module(f"experiments.{name}")


def _steps_per_call(asked, cadence):
    common = cadence.common_divisor()
    if asked == 0:
        # XLA on CPU runs convolutions inside loops several times slower than outside.
        on_cpu = jax.default_backend() == "cpu"
        return 1 if on_cpu else max(k for k in range(1, 9) if common % k == 0)
    if common % asked:
        raise UserError(
            f"config.steps_per_call={asked} must divide num_train_steps and every cadence: their "
            f"greatest common divisor is {common}"
        )
    return asked


def _check_shapes(config, experiment, transform, init, train_step, image_shape):
    """Traces a step and an evaluation, so that a network that does not fit the data says so now."""

    def whole():
        batch = {
            "image": jnp.zeros((config.batch_size, *image_shape), jnp.uint8),
            "label": jnp.zeros(config.batch_size, jnp.int32),
            "index": jnp.zeros(config.batch_size, jnp.int32),
            "slot": jnp.zeros(config.batch_size, jnp.int32),
        }
        state = init()
        rngs = rng.Rngs(state.rng, 0, batch["index"])
        out = train_step(state, batch)
        eval_batch = transform(batch, rngs, train=False)
        return out, experiment.eval_fn(state.params, state.model_state, eval_batch, rngs)

    try:
        _, evaluated = jax.eval_shape(whole)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the network of config.model does not take config.data.image_shape={image_shape}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if config.checkpoint.best_metric:
        choose(
            [f"eval/{name}" for name in evaluated],
            config.checkpoint.best_metric,
            "checkpoint.best_metric",
        )


def _check_workdir(workdir, config, allow=()):
    """Refuses a workdir whose config is another one, naming each key."""
    path = workdir / "config.json"
    if not path.exists():
        return False
    changed = changed_keys(flatten(json.loads(path.read_text())["config"]), flatten(config))
    changed = {k: v for k, v in changed.items() if not k.startswith(tuple(allow))}
    if changed:
        listed = "; ".join(
            f"config.{k}: {old!r} there, {new!r} now" for k, (old, new) in changed.items()
        )
        raise UserError(f"{workdir} belongs to another config ({listed}); choose another --workdir")
    return True


def _checkpoints(config, workdir):
    return Checkpoints(workdir / "checkpoints", **config.checkpoint.to_dict())


def _evaluator(run):
    """Returns (tree) -> {"eval/...": float}: the mean over every example of the evaluation split.

    `tree` is (params, model_state) on the devices. Noise is keyed by an example's place in the
    split, so the numbers do not depend on the batch size or the devices.
    """

    def eval_step(tree, batch):
        rngs = rng.Rngs(jax.random.key(0), 0, batch["index"])
        return run.experiment.eval_fn(*tree, run.transform(batch, rngs, train=False), rngs)

    mapped = run.parallel.compile_map(eval_step)

    def evaluate(tree):
        sums = {}
        for batch in eval_batches(run.eval_data, run.parallel.round_up(run.config.eval.batch_size)):
            mask = batch.pop("mask")
            for name, values in mapped(tree, batch).items():
                sums[name] = sums.get(name, 0.0) + values[mask].sum(dtype=np.float64)
        return {f"eval/{name}": float(total / len(run.eval_data)) for name, total in sums.items()}

    return evaluate


def _sampler(run):
    """Returns (tree, seed, indices) -> uint8 images; image i of a seed is always the same one."""

    def sample_step(tree, batch):
        key = rng.stream(jax.random.key(batch["seed"][0]), "sample")
        return {"image": run.experiment.sample(*tree, rng.per_example(key, batch["index"]))}

    mapped = run.parallel.compile_map(sample_step)
    size = run.parallel.round_up(run.config.sample.batch_size)

    def sample(tree, seed, indices):
        out = []
        for start in range(0, len(indices), size):
            # Always whole batches: how many images are wanted does not change how one is computed.
            index = np.resize(np.asarray(indices[start : start + size], np.int32), size)
            batch = {"index": index, "seed": np.full(size, seed, np.uint32)}
            out.append(plots.to_uint8(mapped(tree, batch)["image"]))
        return np.concatenate(out)[: len(indices)]

    return sample


def _drawer(run, workdir, provenance):
    """Returns (step, state, log=None) -> draws samples and the family's figures."""
    sample = _sampler(run) if run.experiment.sample else None
    count = min(NUM_FIGURE_EXAMPLES, len(run.eval_data))
    host_batch = run.eval_data.batch(np.arange(count), np.arange(count))

    def draw(step, state, log=None):
        told = {**provenance, "step": step}
        pictures = {}
        if run.experiment.figures:
            one = run.parallel.unreplicate((state.eval_params, state.model_state))
            rngs = rng.Rngs(jax.random.key(0), 0, jnp.asarray(host_batch["index"]))
            batch = run.transform(jax.tree.map(jnp.asarray, host_batch), rngs, train=False)
            pictures = run.experiment.figures(*one, batch)
            for name, picture in pictures.items():
                plots.save_png(workdir / "figures" / f"{name}.png", picture, told)
        if sample:
            tree = (state.eval_params, state.model_state)
            config = run.config.sample
            images = sample(tree, config.seed, np.arange(min(config.num, 256)))
            pictures["samples"] = plots.grid(images)
            told = {**told, "seed": config.seed}
            plots.save_png(workdir / "samples" / f"step_{step:08d}.png", pictures["samples"], told)
        if log:
            for name, picture in pictures.items():
                log.write_image(step, f"figures/{name}", picture)

    return draw


def _provenance(run, source):
    """What the PNG files and report.json say about where they come from."""
    return {**source, "train_seed": run.config.seed, "parameters": _which(run)}


def _which(run):
    ema = run.config.ema
    return "ema" if ema.decay > 0 or ema.half_life_images > 0 else "raw"


def train(config, workdir, source):
    """Trains, evaluates and draws; running it again resumes.

    Args:
      config: a resolved ConfigDict.
      workdir: where everything goes, see the README.
      source: {"config_file": "configs/x.py:arg", "overrides": "--config.a=b ..."} for the records.

    Returns:
      The final report, a dict, or None when a signal stopped the run early.
    """
    workdir = Path(workdir)
    if config.num_seeds > 1:
        return _train_seeds(config, workdir, source)
    began = time.perf_counter()
    resumes = _check_workdir(workdir, config)
    run = Run.build(config)
    provenance = _provenance(run, source)

    # Where the run goes on: its own workdir, or from scratch.
    with contextlib.closing(_checkpoints(config, workdir)) as checkpoints:
        state, start = run.init(), 0
        if checkpoints.steps():
            state = checkpoints.restore(state)
            start = int(state.step)
            _say(f"resuming {workdir} at step {start}")
        elif resumes:
            _say(f"{workdir} has no checkpoint yet: starting from step 0")
        if start > config.num_train_steps:
            raise UserError(
                f"{workdir} is at step {start} already, past config.num_train_steps="
                f"{config.num_train_steps}"
            )
        report = workdir / "report.json"
        if start == config.num_train_steps and report.exists():
            report = json.loads(report.read_text())
            if report["step"] == start:
                _say(f"{workdir} is complete; --mode=eval computes its numbers again")
                return report
        logs.write_json(workdir / "config.json", {**source, "config": json.loads(config.to_json())})
        logs.write_text(workdir / "env.txt", logs.environment(sys.argv))
        if start == 0:
            _say(logs.parameter_table(state.params))
        num_parameters = logs.count_parameters(state.params)
        state = run.parallel.replicate(state)
        with StopOnSignal() as signals:
            state, step, metrics, speed = _fit(
                run, state, start, workdir, checkpoints, provenance, signals.stop
            )
        if step < config.num_train_steps:
            _say(f"stopped by {signals.received} at step {step}, saved; the same command resumes")
            return None
        if metrics is None:  # nothing was left to train
            metrics = _evaluator(run)((state.eval_params, state.model_state))
    report = {
        **provenance,
        "step": step,
        **metrics,
        "protocol": _protocol(run),
        "num_parameters": num_parameters,
        **speed,
        "seconds": time.perf_counter() - began,
        "devices": f"{run.parallel.size} x {run.parallel.devices[0].device_kind}",
    }
    logs.write_json(workdir / "report.json", report)
    _draw_curves(workdir, {**provenance, "step": step})
    _say_report(workdir, report)
    return report


def _fit(run, state, start, workdir, checkpoints, provenance, should_stop):
    """Runs the loop; returns (state, step, newest evaluation or None, speed for the report)."""
    config, parallel = run.config, run.parallel
    batch_at = train_batches(run.train_data, config.batch_size, config.seed)
    resident = ()
    if config.data.on_device:
        whole = {"image": run.train_data.images, "label": run.train_data.labels}
        resident = (parallel.replicate(jax.tree.map(jnp.asarray, whole)),)
    compiled = {
        count: parallel.compile_train_step(run.train_step, count, resident=bool(resident))
        for count in {1, run.steps_per_call}
    }
    evaluator, draw = _evaluator(run), _drawer(run, workdir, provenance)
    log = logs.MetricLog(workdir, start)
    progress = logs.Progress(start, config.num_train_steps, config.batch_size)
    profiler = logs.Profiler(workdir / "profile", **config.profile.to_dict())
    latest = {"eval": None, "first_step_seconds": None}
    began = time.perf_counter()

    def host_batch(step):
        batch = batch_at(step)
        return {k: batch[k] for k in ("index", "slot")} if resident else batch

    def run_steps(state, step, count):
        profiler.update(step - start)
        if count == 1:
            batch = parallel.shard(host_batch(step))
        else:
            batches = [host_batch(s) for s in range(step, step + count)]
            batch = parallel.shard(jax.tree.map(lambda *x: np.stack(x), *batches), stacked=True)
        out = compiled[count](state, batch, *resident)
        if latest["first_step_seconds"] is None:
            jax.block_until_ready(out)
            latest["first_step_seconds"] = time.perf_counter() - began
            progress.restart(step + count)
        return out

    def write(step, metrics):
        if metrics is None:
            return progress.update(step)
        values = {f"train/{k}": v for k, v in parallel.fetch(metrics).items()}
        log.write(step, values)
        log.write_events(step, {"time/images_per_second": progress.images_per_second})
        progress.update(step, values)

    def evaluate(step, state):
        jax.block_until_ready(state)
        with progress.paused():
            latest["eval"] = evaluator((state.eval_params, state.model_state))
        log.write(step, latest["eval"])
        return latest["eval"]

    def draw_pictures(step, state):
        jax.block_until_ready(state)
        with progress.paused():
            draw(step, state, log)

    def save(step, state, metrics):
        checkpoints.save(step, parallel.unreplicate(state), json.loads(config.to_json()), metrics)

    with contextlib.closing(log), contextlib.closing(progress), contextlib.closing(profiler):
        state, step = train_loop(
            state,
            start,
            run.cadence,
            run.steps_per_call,
            run_steps,
            write,
            evaluate,
            draw_pictures,
            save,
            should_stop,
        )
    speed = {
        "images_per_second": progress.images_per_second,
        "first_step_seconds": latest["first_step_seconds"],
    }
    return state, step, latest["eval"], speed if step > start else {}


def _protocol(run):
    data = run.config.data
    pixels = "binarized_static" if data.pixels.startswith("binarized") else data.pixels
    return {
        "data": f"{run.eval_data.name}:{run.eval_data.split}",
        "data_sha256": run.eval_data.fingerprint,
        "num_examples": len(run.eval_data),
        "pixels": pixels,
        "parameters": _which(run),
    }


def _train_seeds(config, workdir, source):
    """The same run with seeds seed, seed + 1, ...; mean and standard deviation of every number."""
    reports = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        one = config.copy_and_resolve_references()
        one.seed, one.num_seeds = seed, 1
        report = train(one, workdir / f"seed_{seed}", source)
        if report is None:
            return None
        reports.append(report)
    summary = {**source, "num_seeds": len(reports)}
    for key in reports[0]:
        if key.startswith("eval/"):
            values = [r[key] for r in reports]
            summary[key] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "values": values,
            }
    logs.write_json(workdir / "report.json", summary)
    _say(json.dumps(summary, indent=1))
    return summary


def _restored(config, workdir, step):
    """A run and the state of one of its checkpoints; step is a number, "latest" or "best"."""
    workdir = Path(workdir)
    if config.num_seeds > 1:
        raise UserError(
            f"config.num_seeds={config.num_seeds}: name one of them, for instance without :seeds "
            f"and with --config.seed={config.seed} --workdir={workdir}/seed_{config.seed}"
        )
    if not _check_workdir(workdir, config, allow=("eval.",)):
        raise UserError(f"{workdir} holds no run; train it first, or name another --workdir")
    run = Run.build(config)
    with contextlib.closing(_checkpoints(config, workdir)) as checkpoints:
        if not checkpoints.steps():
            raise UserError(f"{workdir} has no checkpoint yet; train it first")
        chosen = {"latest": lambda: None, "best": checkpoints.best_step}.get(
            step, lambda: int(step)
        )
        state = checkpoints.restore(jax.eval_shape(run.init), chosen())
    return run, run.parallel.replicate(state), int(state.step)


def evaluate(config, workdir, source, step="latest"):
    """Computes every number of a checkpoint again, writes eval_<step>.json, draws the figures."""
    run, state, step = _restored(config, workdir, step)
    provenance = _provenance(run, source)
    metrics = _evaluator(run)((state.eval_params, state.model_state))
    report = {**provenance, "step": step, **metrics, "protocol": _protocol(run)}
    logs.write_json(Path(workdir) / f"eval_{step:08d}.json", report)
    _drawer(run, Path(workdir), provenance)(step, state)
    _say_report(workdir, report)
    return report


def sample(config, workdir, source, step="latest"):
    """Draws config.sample.num images of a checkpoint: a PNG each, and a grid of the first ones."""
    run, state, step = _restored(config, workdir, step)
    if run.experiment.sample is None:
        raise UserError(f"config.experiment='{config.experiment}' has nothing to sample")
    seed = config.sample.seed
    tree = (state.eval_params, state.model_state)
    images = _sampler(run)(tree, seed, np.arange(config.sample.num))
    told = {**_provenance(run, source), "step": step, "seed": seed}
    folder = Path(workdir) / "samples" / f"step_{step:08d}_seed_{seed}"
    for i, image in enumerate(images):
        plots.save_png(folder / f"{i:06d}.png", image, {**told, "index": i})
    plots.save_png(folder.with_suffix(".png"), plots.grid(images[:256]), told)
    _say(f"{len(images)} images in {folder}, a grid in {folder}.png")
    return images


def prepare(config):
    """Makes the dataset of a config ready to be read."""
    name = config.data.name
    if name.startswith("folder:"):
        raise UserError(f"config.data.name='{name}' is a folder: there is nothing to prepare")
    from genjax.data import builders  # imports TFDS, which nothing else needs once data is cached

    path = builders.prepare(name, tfds_data_dir(config.data.data_dir))
    _say(f"dataset '{name}' is ready in {path}")


def _draw_curves(workdir, provenance):
    picture = plots.curves(logs.read_metrics(workdir / "metrics.jsonl"))
    if picture is not None:
        plots.save_png(workdir / "figures" / "curves.png", picture, provenance)


def _say_report(workdir, report):
    numbers = "  ".join(f"{k}={v:.5g}" for k, v in report.items() if k.startswith("eval/"))
    _say(f"step {report['step']}: {numbers}\neverything is in {workdir}")


def _say(text):
    print(text, file=sys.stderr, flush=True)


def set_up_process():
    """Once, before anything touches a device: compiled programs are kept on disk, the heap too."""
    keep_heap()
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
