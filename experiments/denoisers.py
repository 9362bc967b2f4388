"""From a config to what is drawn with: process, network, denoiser, sampler.

What `experiments.diffusion` and `experiments.one_step` share, and every refusal of what cannot be.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax.numpy as jnp

from experiments.config import choose, flatten, require
from experiments.pretrained import other_run
from genjax import rng
from genjax.diffusion import guidance, samplers
from genjax.diffusion.parameterization import Parameterization
from genjax.diffusion.process import PROCESSES, Process
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.targets import TARGETS
from genjax.errors import UserError
from genjax.models.dit import DiT
from genjax.models.unet import UNet

NETWORKS = {"unet": UNet, "dit": DiT}


def make_process(config):
    """The process of a config."""
    options = config.process.to_dict()
    make = choose(PROCESSES, options.pop("name"), "process.name")
    try:
        return make(**options)
    except TypeError as error:
        raise UserError(f"config.process: {str(error).split(') ')[-1]}") from error


def make_network(config, num_classes):
    """The network of a config; `num_classes` is 0 for none."""
    options = config.model.to_dict()
    name = options.pop("name")
    module = choose(NETWORKS, name, "model.name")
    options.pop("conditional")
    known = {field.name for field in dataclasses.fields(module)}
    for key in options:
        require(key in known, f"model.{key}", options[key], f"left out: not a field of {name}")
    if "variant" in options:
        choose(("ddpm", "ddpmpp"), options["variant"], "model.variant")
    if name == "dit":
        heads = options["num_heads"]
        fits = options["dim"] % (4 * heads) == 0
        require(fits, "model.dim", options["dim"], f"a multiple of 4 x model.num_heads={heads}")
    return module(num_classes=num_classes, dtype=config.compute_dtype, **options)


def check_sampling(config, process):
    """Refuses what cannot be sampled; returns (sampler, times)."""
    options = config.sample
    choose(samplers.SAMPLERS, options.sampler, "sample.sampler")
    choose(("small", "large"), options.variance, "sample.variance")
    require(0 <= options.eta <= 1, "sample.eta", options.eta, "in [0, 1]")
    require(options.churn >= 0, "sample.churn", options.churn, "at least 0")
    idle = options.churn > 0 and options.sampler not in ("euler", "heun")
    require(not idle, "sample.churn", options.churn, f"0 with sampler '{options.sampler}'")
    schedule = choose(SCHEDULES, options.schedule, "sample.schedule")
    steps = options.num_steps
    require(steps >= 1, "sample.num_steps", steps, "at least 1")
    if process.num_steps:
        most = process.num_steps
        require(steps <= most, "sample.num_steps", steps, f"at most the process's {most}")
    churn = samplers.Churn(options.churn, options.churn_min, options.churn_max, options.churn_noise)
    sampler = samplers.make_sampler(
        options.sampler, process, eta=options.eta, variance=options.variance, churn=churn
    )
    return sampler, lambda: schedule(process, steps)


def check_shared(config, class_names):
    """Refuses what no model of this kind can do; returns the number of classes, 0 for none."""
    pixels = config.data.pixels
    require(pixels == "symmetric", "data.pixels", pixels, "'symmetric': images in [-1, 1]")
    sigma_data = config.objective.sigma_data
    require(0 < sigma_data < math.inf, "objective.sigma_data", sigma_data, "above 0 and finite")
    num_classes = len(class_names) if config.model.conditional else 0
    if config.model.conditional and num_classes < 2:
        raise UserError(f"config.data.name='{config.data.name}' has no classes to learn")
    drop = config.objective.label_dropout
    require(0 <= drop < 1, "objective.label_dropout", drop, "in [0, 1)")
    scale, weaker = config.sample.guidance, config.sample.weaker
    able = scale == 1 or (num_classes and drop > 0) or weaker
    require(able, "sample.guidance", scale, "1 without classes and objective.label_dropout")
    require(scale != 1 or not weaker, "sample.guidance", scale, "another with sample.weaker")
    return num_classes


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and what its word means.

    Attributes:
      network: a Flax module, (x, c_noise, labels, train) -> [B, ...].
      par: a `Parameterization`.
      num_classes: 0 for none; label `num_classes` means no class.
    """

    network: object
    par: Parameterization
    num_classes: int

    def applied(self, params, labels, train=False, dropout=None):
        """The network as (x, c_noise) -> prediction."""
        rngs = {"dropout": dropout} if train else {}
        return lambda x, c: self.network.apply({"params": params}, x, c, labels, train, rngs=rngs)

    def denoise(self, params, x, t, labels):
        """x0_hat."""
        return self.par.denoise(self.applied(params, labels), x, t)


def make_model(config, class_names):
    """The `Model` of a config."""
    process = make_process(config)
    target = choose(tuple(TARGETS), config.objective.target, "objective.target")
    continuous = target != "velocity" or not process.num_steps
    require(continuous, "objective.target", target, "another for a discrete process")
    blind = target == "eps" and process.prior_std == 1 and process.alpha_sigma(1.0)[0] == 0
    require(not blind, "objective.target", target, "another where alpha reaches 0")
    num_classes = check_shared(config, class_names)
    objective = config.objective
    par = Parameterization(process, target, objective.sigma_data, objective.scale_input)
    return Model(make_network(config, num_classes), par, num_classes)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What images are drawn with.

    Attributes:
      process: a `Process`.
      sampler: a `samplers.Sampler`.
      times: () -> [N], falling.
      denoiser: (params, model_state, labels [B]) -> (x, t) -> x0_hat, as config.sample has it.
      image_shape: (H, W, C).
      num_classes: 0 for none; label `num_classes` means no class.
    """

    process: Process
    sampler: samplers.Sampler
    times: Callable
    denoiser: Callable
    image_shape: tuple[int, int, int]
    num_classes: int


def weaker_config(config):
    """The config of the run that config.sample.weaker names."""
    where, step = config.sample.weaker, config.sample.weaker_step
    known = step in ("latest", "best") or step.isdecimal()
    require(known, "sample.weaker_step", step, "a number, latest or best")
    there = other_run(where, config)
    ours, theirs = flatten(config), flatten(there)
    for key in sorted(ours.keys() | theirs.keys()):
        if key.startswith(("experiment", "process.", "data.image_shape", "model.conditional")):
            same = ours.get(key) == theirs.get(key)
            require(same, "sample.weaker", where, f"a run with config.{key}={ours.get(key)!r}")
    return there


def make_drawing(config, model, image_shape, class_names):
    """The `Drawing` of a config: guided and clipped as it says."""
    process, options = model.par.process, config.sample
    sampler, times = check_sampling(config, process)
    weaker = make_model(weaker_config(config), class_names) if options.weaker else None

    def denoiser(params, model_state, labels):
        denoise = functools.partial(model.denoise, params)
        guide = process, options.guidance, options.guidance_interval
        if weaker:
            worse = functools.partial(weaker.denoise, model_state["weaker"], labels=labels)
            guided = guidance.guided(functools.partial(denoise, labels=labels), worse, *guide)
        else:
            nothing = jnp.full_like(labels, model.num_classes)
            guided = guidance.classifier_free(denoise, labels, nothing, *guide)
        return guidance.clipped(guided) if options.clip else guided

    shape = tuple(image_shape)
    return Drawing(process, sampler, times, denoiser, shape, model.num_classes)


def label_dropper(config, num_classes):
    """(labels, keys) -> labels, some of them those of no class."""

    def dropped(labels, keys):
        gone = rng.uniform(keys, ()) < config.objective.label_dropout
        return jnp.where(gone, num_classes, labels)

    return dropped


def no_labels(keys):
    """What a network without classes is told: int32 [B], which it does not look at."""
    return jnp.zeros(keys.shape[0], jnp.int32)


def to_unit(x):
    """[-1, 1] -> [0, 1], what is outside cut off."""
    return jnp.clip((x + 1) / 2, 0.0, 1.0)
