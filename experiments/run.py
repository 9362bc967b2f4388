"""From a config to everything it stands for, for every family: built, checked, not yet compiled."""

import dataclasses
import functools
import importlib
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import choose, require, validate
from experiments.judge import IN_LOOP, Judge
from genjax import rng
from genjax.data.dataset import load_dataset
from genjax.data.sources import cache_root, find_source, tfds_data_dir
from genjax.data.transforms import Transform
from genjax.errors import UserError
from genjax.train.checkpoint import quiet_orbax
from genjax.train.guard import checked_names, guarded
from genjax.train.loop import Cadence
from genjax.train.optimizers import LINE_SEARCHING, make_optimizer, make_schedule
from genjax.train.parallel import (
    Parallel,
    agreed,
    from_main,
    is_main,
    keep_heap,
    main_first,
)
from genjax.train.state import Ema, init_state, make_train_step

# What in this folder is not a family.
SHARED = (
    "__init__",
    "codes",
    "config",
    "denoisers",
    "diffusion_tasks",
    "evaluation",
    "frozen_vgg",
    "judge",
    "latents",
    "players",
    "pretrained",
    "run",
    "style_step",
    "stylize",
    "training",
    "workdir",
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a family hands to the trainer: pure functions of images that `Transform` prepared.

    `experiments/<family>.py` defines `build(config, image_shape, class_names, axis_name)`, which
    returns one. `axis_name` is for batch statistics under pmap, None under jit.

    Attributes:
      init: key -> (params, model_state); with `init_examples`, (key, images) -> the same.
      init_examples: how many of the first training images, uint8 [n, H, W, C], `init` looks at.
      loss_fn: (params, model_state, batch, rngs, train) -> (loss, (metrics, model_state)).
      eval_fn: (params, model_state, batch, rngs) -> {name: values of each example, [B, ...]}.
      summarize: {name: those of the whole split, numpy [N, ...]} -> {name: float}; without it, each
        is averaged.
      eval_figures: likewise -> {name: uint8 picture [H, W, C]}.
      sample: (params, model_state, keys [B]) -> images [B, H, W, C] in [0, 1]; row i of keys[i].
      sample_shape: (H, W, C) of those, where it is not the data's.
      sample_classes: whether `sample` takes labels, int32 [B], after the keys.
      export: (params, model_state, folder) -> None; writes what others use of a trained model.
      figures: (params, model_state, batch) -> {name: uint8 picture [H, W, C]}; not compiled.
      make_train_step: (tx, ema, axis_name) -> train_step, where one loss is not enough (a game).
      init_opt: (tx, params) -> optimizer state, likewise.
      averaged: params -> those of them that config.ema is about, a dict; without it all.
      frozen: {entry of model_state that no step changes: what it is, with its SHA-256}. Checkpoints
        are without those; `init` makes them again.
      settle: (params, model_state) -> model_state, once before these evaluate and sample (batch
        statistics of averaged parameters); compiled.
      pretrained: () -> params, NumPy arrays, that a run begins with instead of those of `init`.
      beside: () -> {name: pytree on the devices}, which evaluating and sampling find in
        `model_state`, and training does not: parameters of another run.
      line_search: whether that step gives an optimizer the loss as a function.
    """

    init: Callable
    loss_fn: Callable | None
    eval_fn: Callable
    init_examples: int = 0
    summarize: Callable = lambda values: {
        k: np.mean(v, dtype=np.float64) for k, v in values.items()
    }
    eval_figures: Callable | None = None
    sample: Callable | None = None
    sample_shape: tuple[int, int, int] | None = None
    sample_classes: bool = False
    export: Callable | None = None
    figures: Callable | None = None
    make_train_step: Callable | None = None
    init_opt: Callable | None = None
    averaged: Callable = lambda params: params
    frozen: dict[str, str] = dataclasses.field(default_factory=dict)
    settle: Callable | None = None
    pretrained: Callable | None = None
    beside: Callable | None = None
    line_search: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything a config stands for, built but not yet compiled."""

    config: object
    parallel: Parallel
    experiment: Experiment
    transform: Transform
    train_data: object
    eval_data: object
    judge: Judge | None  # of generated images, where config.eval asks for it
    cadence: Cadence
    steps_per_call: int
    train_step: Callable  # `guarded`: (state, batch) -> (state, (metrics, health))
    health_names: Callable  # () -> what each element of health is about
    init: Callable  # () -> TrainState

    @classmethod
    def build(cls, config):
        """Builds a run; every mistake of the user's ends here, before anything is compiled."""
        parallel = Parallel.create(config.parallel, config.num_devices)
        validate(config, parallel.size)
        digest = zlib.crc32(config.to_json().encode()) // 2
        if not agreed(from_main(digest) == digest):
            raise UserError("the processes of this run were started with different configs")
        train_source, eval_source = main_first(lambda: find_sources(config))
        shape = tuple(config.data.image_shape)
        family = _family(config.experiment)
        names = train_source.class_names
        experiment = family.build(config, shape, names, parallel.axis_name)
        # The same without communication, for what is traced outside of pmap.
        local = experiment
        if parallel.axis_name:
            local = family.build(config, shape, names, None)
        transform = Transform(
            config.data.pixels,
            config.data.flip,
            config.data.crop_padding,
            config.batch_size,
            train_source.size,
        )

        optim = config.optim.to_dict()
        accumulate_steps, lr = optim.pop("accumulate_steps"), optim.pop("lr")
        able = optim["name"] not in LINE_SEARCHING or experiment.line_search
        other = f"another with config.experiment='{config.experiment}'"
        require(able, "optim.name", optim["name"], other)
        schedule = make_schedule(
            lr, optim.pop("schedule"), optim.pop("warmup_steps"), config.num_train_steps
        )
        tx = make_optimizer(optim.pop("name"), schedule, **optim)
        ema = Ema(batch_size=config.batch_size, **config.ema.to_dict())
        init_opt = tx.init
        if experiment.init_opt:
            init_opt = lambda params: experiment.init_opt(tx, params)

        def make_step(axis_name):
            chosen = experiment if axis_name else local
            if chosen.make_train_step:
                step = chosen.make_train_step(tx, ema, axis_name)
            else:
                step = make_train_step(
                    chosen.loss_fn,
                    tx,
                    ema,
                    accumulate_steps=accumulate_steps,
                    axis_name=axis_name,
                )

            def train_step(state, batch):
                rngs = rng.Rngs(state.rng, state.step, batch["slot"])
                new_state, metrics = step(state, transform(batch, rngs, train=True))
                return new_state, {
                    **metrics,
                    "lr": jnp.asarray(schedule(state.step - state.skipped)),
                }

            return train_step

        cadence = Cadence(*(getattr(config, f.name) for f in dataclasses.fields(Cadence)))
        steps_per_call = _steps_per_call(config.steps_per_call, cadence)

        def init(images):
            first = [images] if experiment.init_examples else []
            make = lambda key: experiment.init(key, *first)
            return init_state(config.seed, make, init_opt, ema, experiment.averaged)

        shapes, evaluated = _check_shapes(
            config, experiment, transform, init, make_step(None), shape
        )
        judge = None
        if config.eval.num_samples or config.eval.num_samples_in_loop:
            require(
                experiment.sample is not None,
                "eval.num_samples",
                config.eval.num_samples,
                f"0: config.experiment='{config.experiment}' has nothing to sample",
            )
            judge = Judge.create(config, parallel, train_source, eval_source)
        label, num_classes = config.sample.label, len(names) if experiment.sample_classes else 0
        what = f"-1, or a class, 0 to {num_classes - 1}" if num_classes else "-1 without classes"
        require(label == -1 or 0 <= label < num_classes, "sample.label", label, what)
        if config.checkpoint.best_metric:
            metrics = _metric_names(config, experiment, evaluated, judge)
            choose(metrics, config.checkpoint.best_metric, "checkpoint.best_metric")
        train_data, eval_data = main_first(
            lambda: [
                load_dataset(
                    source, shape, loader=config.data.loader, bad_images=config.data.bad_images
                )
                for source in (train_source, eval_source)
            ]
        )
        _check_size(train_data, len(train_data), config)  # without the pictures left out
        digest = zlib.crc32(f"{train_data.fingerprint} {eval_data.fingerprint}".encode()) // 2
        if not agreed(from_main(digest) == digest):
            raise UserError(f"the processes of this run see other data of '{train_data.name}'")
        if judge:
            judge = dataclasses.replace(judge, train_data=train_data, eval_data=eval_data)
        return cls(
            config=config,
            parallel=parallel,
            experiment=experiment,
            transform=transform,
            train_data=train_data,
            eval_data=eval_data,
            judge=judge,
            cadence=cadence,
            steps_per_call=steps_per_call,
            train_step=guarded(
                make_step(parallel.axis_name), config.nonfinite.policy, parallel.axis_name
            ),
            health_names=lambda: checked_names(make_step(None), *shapes),
            init=functools.partial(init, _first_images(train_data, experiment.init_examples)),
        )

    def begin(self):
        """The state that training begins with, on the devices."""
        if not self.experiment.pretrained:
            return self.parallel.init(self.init)
        params = self.experiment.pretrained()  # first, lest there are none
        state = self.parallel.to_global(self.parallel.init(self.init))
        averaged = self.experiment.averaged(params) if jax.tree.leaves(state.ema_params) else {}
        # Copies: parameters and average must not share a buffer, the state is donated.
        put = lambda old, new: jax.device_put(np.array(new), old.sharding)
        state = state.replace(
            params=jax.tree.map(put, state.params, params),
            ema_params=jax.tree.map(put, state.ema_params, averaged),
        )
        return self.parallel.from_global(state)

    def eval_tree(self, state):
        """(params, model_state) on the devices, to evaluate and sample with."""
        tree = (state.eval_params, state.model_state)
        tree = self._settled(tree) if self.experiment.settle else tree
        return (tree[0], {**tree[1], **self._beside}) if self.experiment.beside else tree

    @functools.cached_property
    def _beside(self):
        return self.experiment.beside()

    def saved(self, state):
        """What of a state, or of its shapes, a checkpoint holds."""
        frozen = self.experiment.frozen
        if not frozen:
            return state
        kept = {k: v for k, v in state.model_state.items() if k not in frozen}
        return state.replace(model_state=kept)

    def template(self):
        """What a checkpoint is restored into."""
        return self.parallel.template(self.saved(jax.eval_shape(self.init)))

    def whole(self, state):
        """A state on the devices, restored from a checkpoint, with what that is without."""
        frozen = self.experiment.frozen
        if not frozen:
            return state
        # All of `init`, not a part of it: the same program makes the same bits.
        fresh = self.parallel.init(self.init).model_state
        return state.replace(model_state={**state.model_state, **{k: fresh[k] for k in frozen}})

    @functools.cached_property
    def _settled(self):
        settle = self.experiment.settle
        return self.parallel.compile_tree(lambda tree: (tree[0], settle(*tree)))


def hook(config, name, default=None):
    """What the family of a config does in its own way; few do.

    `complete(config)` returns the config with what follows from others of its fields, such as the
    size of a picture; `train(config, workdir, source, train_one)` makes several runs of one;
    `sample(config, workdir, source, step)` is what --mode=sample does.
    """
    return getattr(_family(config.experiment), name, default)


def completed(config):
    """The config with what its family derives from others of its fields."""
    return hook(config, "complete", lambda config: config)(config)


def find_sources(config):
    """The sources of a config's two splits, checked: [training, evaluation]."""
    found = []
    eval_name = config.data.eval_name or config.data.name
    for name, split in (
        (config.data.name, config.data.train_split),
        (eval_name, config.data.eval_split),
    ):
        source = find_source(name, split, config.data.data_dir)
        if source.size < 1:
            raise UserError(f"dataset '{source.name}' has an empty split '{source.split}'")
        found.append(source)
    known = [len(source.class_names) for source in found]
    require(
        known[0] == known[1],
        "data.eval_name",
        eval_name,
        f"a dataset of {known[0]} classes as '{config.data.name}' has, not {known[1]}",
    )
    _check_size(found[0], found[0].size, config)
    return found


def _first_images(data, count):
    index = np.arange(count) % len(data)
    return data.batch(index, index)["image"] if count else None


def _check_size(data, count, config):
    if count < config.batch_size:
        raise UserError(
            f"dataset '{data.name}' has {count} examples in split '{data.split}', fewer than "
            f"config.batch_size={config.batch_size}"
        )


def _family(name):
    folder = Path(__file__).parent
    known = sorted(p.stem for p in folder.glob("*.py") if p.stem not in SHARED)
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
    """Traces a step and an evaluation, so that a network that does not fit the data says so now.

    Returns:
      The shapes of (state, batch), and those of the values of each example in an evaluation.
    """
    example = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    images = jax.ShapeDtypeStruct((config.batch_size, *image_shape), jnp.uint8)
    batch = {"image": images, "label": example, "index": example, "slot": example}
    first = jax.ShapeDtypeStruct((experiment.init_examples, *image_shape), jnp.uint8)

    def whole(batch, first):
        state = init(first)
        rngs = rng.Rngs(state.rng, 0, batch["index"])
        train_step(state, batch)
        eval_batch = transform(batch, rngs, train=False)
        return state, experiment.eval_fn(state.params, state.model_state, eval_batch, rngs)

    try:
        state, evaluated = jax.eval_shape(whole, batch, first)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the network of config.model does not take config.data.image_shape={image_shape}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return (state, batch), evaluated


def _metric_names(config, experiment, evaluated, judge):
    """Names of the numbers that each evaluation has, but those of its end alone."""
    one = {name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in evaluated.items()}
    names = list(experiment.summarize(one))
    if config.eval.num_samples_in_loop:
        names += judge.names(config.eval.num_samples_in_loop, IN_LOOP)
    return [f"eval/{name}" for name in names]


def prepare(config):
    """Makes the dataset of a config ready to be read."""
    name = config.data.name
    if name.startswith(("folder:", "picture:", "codes:")):
        raise UserError(f"config.data.name='{name}' is the data: there is nothing to prepare")
    from genjax.data import builders  # imports TFDS, which nothing else needs once data is cached

    made_of = "mnist" if name == "stacked_mnist" else name
    path = builders.prepare(made_of, tfds_data_dir(config.data.data_dir))
    say(f"dataset '{name}' is ready in {path}")


def say(text):
    """Tells the user, once for all processes."""
    if is_main():
        print(text, file=sys.stderr, flush=True)


def warn(text):
    """Tells of something that went wrong and was survived."""
    say(f"warning: {text}")


def set_up_process():
    """Once, before anything touches a device: compiled programs are kept on disk, the heap too."""
    quiet_orbax()
    keep_heap()
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
