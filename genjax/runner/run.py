"""From a config to everything that it describes: built and checked, not compiled yet."""

import contextlib
import dataclasses
import functools
import json
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax import rng
from genjax.data.dataset import Dataset, StreamedDataset
from genjax.data.sources import cache_root
from genjax.data.transforms import Transform
from genjax.errors import UserError
from genjax.files import user_path
from genjax.runner.config import FIELDS, check_values
from genjax.runner.datasets import check_size, find_sources, first_images, load_splits
from genjax.runner.family import Family, find_family
from genjax.runner.fields import check_idle, choose, flatten, merged, require
from genjax.runner.judge import IN_LOOP, Judge
from genjax.runner.terminal import warn
from genjax.train.cadence import Cadence
from genjax.train.canary import check_compiler
from genjax.train.checkpoint import quiet_orbax
from genjax.train.guard import checked_names
from genjax.train.optimizers import LINE_SEARCHING, make_optimizer, make_schedule
from genjax.train.parallel import (
    FUSION_FLAG,
    Parallel,
    agreed,
    from_main,
    keep_heap,
    leave_out_wrong_fusions,
    main_first,
)
from genjax.train.state import Ema, TrainState, init_state
from genjax.train.step import LossUpdate, TrainStep
from genjax.typing import ModelState, Params


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a config describes, built but not compiled.

    Attributes:
      config: the finished config.
      parallel: the devices and how a step is spread over them.
      family: networks, loss, evaluation, sampling.
      transform: prepares images on the device.
      train_data, eval_data: the two splits.
      judge: compares generated images with real ones, where config.eval asks for it.
      cadence: how often things happen.
      steps_per_call: steps per dispatch.
      train_step: what is compiled, not yet mapped over devices.
      init: () -> the initial state, to be compiled.
    """

    config: ConfigDict
    parallel: Parallel
    family: Family
    transform: Transform
    train_data: Dataset | StreamedDataset
    eval_data: Dataset | StreamedDataset
    judge: Judge | None
    cadence: Cadence
    steps_per_call: int
    train_step: TrainStep
    init: Callable[[], TrainState]

    @classmethod
    def build(
        cls,
        config: ConfigDict,
        parallel: Parallel | None = None,
        splits: tuple[Dataset, Dataset] | None = None,
    ) -> "Run":
        """Builds a run; every mistake of the user's is found here, before anything is compiled.

        Args:
          config: finished.
          parallel: replaces the devices of the config, even by some that are not on this machine:
            such a run can be compiled.
          splits: replace the training and the evaluation split of the config.

        Raises:
          UserError: one line that says what is wrong and where.
        """
        module = find_family(config.experiment)
        compiler_is_checked = parallel is None
        parallel = parallel or Parallel.create(config.parallel, config.num_devices)
        check_values(config, module.FIELDS, parallel.size)
        _check_same(config.to_json(), "the processes of this run were started with other configs")
        cadence = Cadence(*(getattr(config, f.name) for f in dataclasses.fields(Cadence)))
        steps_per_call = _steps_per_call(config.steps_per_call, cadence, parallel.platform)
        sources = splits or main_first(lambda: find_sources(config))
        shape, class_names = tuple(config.data.image_shape), sources[0].class_names
        family = module.build(config, shape, class_names)
        transform = Transform(
            config.data.pixels,
            config.data.flip,
            config.data.crop_padding,
            config.batch_size,
            len(sources[0]),
        )
        train_step, init = _make_step(config, family, transform)
        check_idle(config, merged(FIELDS, module.FIELDS))  # after mistakes that are worse
        with parallel.tracing():
            evaluated, model_state = _check_shapes(config, family, train_step, init)
        _check_statistics(config, family, model_state)
        judge = _make_judge(config, family, parallel, sources)
        _check_label(config, family, class_names)
        if config.checkpoint.best_metric:
            metrics = _metric_names(config, family, evaluated, judge)
            choose(metrics, config.checkpoint.best_metric, "checkpoint.best_metric")
        train_data, eval_data = splits or load_splits(config, *sources)
        check_size(train_data, len(train_data), config)  # without the images left out
        _check_same(
            f"{train_data.fingerprint} {eval_data.fingerprint}",
            f"the processes of this run see other data of '{train_data.name}'",
        )
        if compiler_is_checked:  # last: what is wrong with the config is found first
            check_compiler(config.compute_dtype)
        if judge:
            judge = dataclasses.replace(judge, train_data=train_data, eval_data=eval_data)
        return cls(
            config=config,
            parallel=parallel,
            family=family,
            transform=transform,
            train_data=train_data,
            eval_data=eval_data,
            judge=judge,
            cadence=cadence,
            steps_per_call=steps_per_call,
            train_step=train_step,
            init=functools.partial(init, first_images(train_data, family.num_init_examples)),
        )

    @functools.cached_property
    def health_names(self) -> list[str]:
        """The names of what a step's health is about."""
        state, batch = jax.eval_shape(self.init), _batch_shapes(self.config)
        return checked_names(self.train_step.advance, state, batch)

    # ---- States on the devices ----

    def start(self) -> TrainState:
        """Returns the state that training starts with, on the devices."""
        if not self.family.initial_params:
            return self.parallel.init(self.init)
        params = self.family.initial_params()  # first: it fails where they cannot be read
        state = self.parallel.to_global(self.parallel.init(self.init))
        averaged = self.family.averaged(params) if jax.tree.leaves(state.ema_params) else {}
        # Copies: parameters and average must not share a buffer, the state is donated.
        put = lambda old, new: jax.device_put(np.array(new), old.sharding)
        state = state.replace(
            params=jax.tree.map(put, state.params, params),
            ema_params=jax.tree.map(put, state.ema_params, averaged),
        )
        return self.parallel.from_global(state)

    def eval_tree(self, state: TrainState) -> tuple[Params, ModelState]:
        """Returns (params, model_state) on the devices, to evaluate and sample with."""
        tree = (state.eval_params, state.model_state)
        if self.family.standing_statistics:
            tree = self._with_standing_statistics(tree)
        return (tree[0], {**tree[1], **self._guide_params}) if self._guide_params else tree

    @functools.cached_property
    def _guide_params(self) -> dict[str, Any]:
        return self.family.guide_params() if self.family.guide_params else {}

    @functools.cached_property
    def _with_standing_statistics(self):
        compute = self.family.standing_statistics
        return self.parallel.compile_tree(lambda tree: (tree[0], compute(*tree)))

    # ---- What a checkpoint holds ----

    def saved(self, state: TrainState) -> TrainState:
        """Returns the part of a state, or of its shapes, that a checkpoint holds."""
        frozen = self.family.frozen
        if not frozen:
            return state
        kept = {k: v for k, v in state.model_state.items() if k not in frozen}
        return state.replace(model_state=kept)

    def template(self) -> TrainState:
        """Returns what a checkpoint is restored into: shapes, dtypes and shardings."""
        return self.parallel.template(self.saved(jax.eval_shape(self.init)))

    def full_state(self, state: TrainState) -> TrainState:
        """Returns a restored state on the devices with the frozen parts added."""
        frozen = self.family.frozen
        if not frozen:
            return state
        # All of `init`, not a part of it: the same program makes the same bits.
        fresh = self.parallel.init(self.init).model_state
        return state.replace(model_state={**state.model_state, **{k: fresh[k] for k in frozen}})


def _make_step(
    config: ConfigDict, family: Family, transform: Transform
) -> tuple[TrainStep, Callable]:
    """Returns the train step, and (first images) -> initial state."""
    optim = config.optim.to_dict()
    accumulate_steps, lr, name = (optim.pop(k) for k in ("accumulate_steps", "lr", "name"))
    able = name not in LINE_SEARCHING or family.line_search
    what = f"another with config.experiment='{config.experiment}'"
    require(able, "optim.name", name, what)
    schedule = make_schedule(
        lr, optim.pop("schedule"), optim["warmup_steps"], config.num_train_steps
    )
    tx = family.optimizer(make_optimizer(name, schedule, **optim))
    ema = Ema(batch_size=config.batch_size, **config.ema.to_dict())
    if family.train_step:
        update = lambda state, batch, rngs: family.train_step(state, batch, rngs, tx, ema)
    else:
        update = LossUpdate(family.loss, tx, ema, accumulate_steps)

    def init(images):
        make = lambda key: family.init(key, images)
        init_optimizer = lambda params: family.init_optimizer(tx, params)
        return init_state(config.seed, make, init_optimizer, ema, family.averaged)

    step = TrainStep(
        update,
        transform,
        schedule,
        config.nonfinite.policy,
        skips_large=config.optim.skip_norm > 0,
        updates_per_step=family.updates_per_step,
    )
    return step, init


def _batch_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    example = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    shape = (config.batch_size, *config.data.image_shape)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    return {"image": images, "label": example, "index": example, "slot": example}


def _check_shapes(
    config: ConfigDict, family: Family, train_step: TrainStep, init
) -> tuple[Any, ModelState]:
    """Traces a step and an evaluation, so that a network that does not fit the data fails now.

    Returns:
      (shapes of an evaluation's values of each example, those of the model state).
    """
    image_shape = tuple(config.data.image_shape)
    count = family.num_init_examples
    first = jax.ShapeDtypeStruct((count, *image_shape), jnp.uint8) if count else None

    def step_and_evaluation(batch, first):
        state = init(first)
        rngs = rng.Rngs(state.rng, 0, batch["index"])
        train_step.advance(state, batch)
        eval_batch = train_step.transform(batch, rngs, train=False)
        values = family.evaluate(state.params, state.model_state, eval_batch, rngs)
        return values, state.model_state

    try:
        return jax.eval_shape(step_and_evaluation, _batch_shapes(config), first)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the network of config.model does not take config.data.image_shape={image_shape}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check_statistics(config: ConfigDict, family: Family, model_state: ModelState) -> None:
    """Refuses options that need a mean over examples where a network looks at whole batches."""
    if family.train_step:
        return
    changing = {k: v for k, v in model_state.items() if k not in family.frozen}
    kept = ", ".join(k for k, v in sorted(changing.items()) if jax.tree.leaves(v))
    what = family.whole_batch or (kept and f"the statistics of whole batches that it keeps: {kept}")
    parts = config.optim.accumulate_steps
    require(parts == 1 or not what, "optim.accumulate_steps", parts, f"1 with {what}")
    for name in ("decay", "half_life_images"):
        off = not config.ema[name] or not kept or family.standing_statistics is not None
        belong = f"0: what the network keeps ({kept}) belongs to the parameters without an average"
        require(off, f"ema.{name}", config.ema[name], belong)


def _make_judge(config: ConfigDict, family: Family, parallel: Parallel, sources) -> Judge | None:
    count = config.eval.num_samples or config.eval.num_samples_in_loop
    if not count:
        return None
    what = f"0: config.experiment='{config.experiment}' has nothing to sample"
    require(family.sample is not None, "eval.num_samples", count, what)
    return Judge.create(config, parallel, *sources)


def _check_label(config: ConfigDict, family: Family, class_names: tuple[str, ...]) -> None:
    label, num_classes = config.sample.label, len(class_names) * family.sample_takes_labels
    what = f"-1, or a class, 0 to {num_classes - 1}" if num_classes else "-1 without classes"
    require(label == -1 or 0 <= label < num_classes, "sample.label", label, what)


def _metric_names(
    config: ConfigDict, family: Family, evaluated: Any, judge: Judge | None
) -> list[str]:
    """Returns the names of the numbers that each evaluation has, without those of the last one."""
    one = {name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in evaluated.items()}
    names = list(family.summarize(one))
    if config.eval.num_samples_in_loop:
        names += judge.names(config.eval.num_samples_in_loop, IN_LOOP)
    return [f"eval/{name}" for name in names]


def _steps_per_call(requested: int, cadence: Cadence, platform: str) -> int:
    common = cadence.common_divisor()
    if requested == 0:
        # XLA on CPU runs convolutions inside loops several times slower than outside.
        return 1 if platform == "cpu" else max(k for k in range(1, 9) if common % k == 0)
    if common % requested:
        raise UserError(
            f"config.steps_per_call={requested} must divide num_train_steps and every cadence: "
            f"their greatest common divisor is {common}"
        )
    return requested


def _check_same(text: str, message: str) -> None:
    """Raises a UserError where a text is not the same in all processes."""
    digest = zlib.crc32(text.encode()) // 2
    if not agreed(from_main(digest) == digest):
        raise UserError(message)


def set_up_process(config: ConfigDict | None = None) -> None:
    """Prepares a process before anything touches a device: compile cache, heap, orbax's log.

    Args:
      config: of the run. Where it, or a run that it names (a guide, initial parameters), computes
        in half precision, XLA is told to leave out the fusions that are wrong there on a CPU.
    """
    quiet_orbax()
    keep_heap()
    if config is not None and _computes_in_half(config):
        own = leave_out_wrong_fusions()
        if own not in ("", f"{FUSION_FLAG}="):
            warn(f"{own} in XLA_FLAGS is kept; it can be wrong in half precision on a CPU")
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _computes_in_half(config: ConfigDict) -> bool:
    """Returns whether a run, or another one whose workdir its config names, is not in float32."""
    dtypes = [config.compute_dtype]
    for value in flatten(config).values():
        if not (isinstance(value, str) and value):
            continue
        # What is wrong with such a path or file is said when it is used.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, UserError):
            path = user_path(value, "config") / "config.json"
            if path.is_file():
                dtypes.append(json.loads(path.read_text())["config"]["compute_dtype"])
    return any(dtype != "float32" for dtype in dtypes)
