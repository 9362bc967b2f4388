"""Diffusion and flow models (Ho et al. 2020; Karras et al. 2022; Lipman et al. 2023).

  x_t = alpha(t) x_0 + sigma(t) eps,   loss = E_{t, x_0, eps} w(t) |p - p_net(x_t, t)|^2,

with p one of the targets in `genjax.diffusion.targets`, the squares averaged over dimensions.
Process, target, weighting and the distribution of t are chosen for training; sampler, schedule and
guidance for sampling, in any combination with a trained network.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.diffusion import denoisers, tasks
from experiments.diffusion.denoisers import (
    LABEL_DROPOUT,
    NETWORKS,
    PROCESSES,
    DenoisingFamily,
    make_network,
    make_process,
    no_labels,
    to_unit,
)
from experiments.diffusion.pretrained import guide_config, guide_loader, initial_loader
from genjax import plots, rng
from genjax.data.transforms import PIXELS
from genjax.diffusion import editing, guidance, likelihood, samplers
from genjax.diffusion.parameterization import Network, Parameterization
from genjax.diffusion.process import Denoiser, Process, Time, edm
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.targets import TARGETS
from genjax.diffusion.weightings import TIME_SAMPLINGS, WEIGHTINGS
from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_mass
from genjax.rng import Rngs
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Images, Metrics, Pictures
from genjax.runner.fields import field, is_set, one_of, other_than, require
from genjax.runner.modes import sample_images
from genjax.runner.restore import restored_run
from genjax.typing import Array, Float, Int, Key, ModelState, Params, Shape

NUM_SHOWN = 8  # images of each kind in a figure
VLB_STEPS = 1000  # of the chain that bounds a continuous process

NORMAL_TIMES = other_than("objective.time_sampling", "uniform")
CHURNING = is_set("sample.churn")

FIELDS = {
    "data": {"pixels": field("symmetric", "[-1, 1]", one_of=PIXELS)},
    "process": PROCESSES,
    "model": NETWORKS,
    "objective": {
        "target": field("F", "what the network predicts", one_of=TARGETS),
        "sigma_data": field(
            0.5,
            "standard deviation of the pixels",
            above=0,
            only_with=one_of("objective.target", "F")
            | is_set("objective.scale_input")
            | one_of("objective.weighting", "edm"),
        ),
        "scale_input": field(True, "divide the network's input by its standard deviation"),
        "weighting": field("simple", "of the noise levels in the loss", one_of=WEIGHTINGS),
        "time_sampling": field("log_normal", "of t in training", one_of=TIME_SAMPLINGS),
        "time_mean": field(-1.2, "of log(sigma / alpha), or of logit(t)", only_with=NORMAL_TIMES),
        "time_std": field(1.2, above=0, only_with=NORMAL_TIMES),
        "label_dropout": LABEL_DROPOUT,
    },
    "init_from": field("", "workdir of a run, or file of weights, that training starts with"),
    "sample": {
        **tasks.FIELDS,
        "weaker": field("", "workdir of the guide, a weaker run (autoguidance)"),
        "weaker_step": field(
            "latest", "its checkpoint: a number, latest or best", only_with=is_set("sample.weaker")
        ),
        "sampler": field("heun", one_of=samplers.SAMPLERS),
        "schedule": field("karras", "of the sampler's times", one_of=SCHEDULES),
        "num_steps": field(18, at_least=1),
        "eta": field(
            0.0,
            "noise of ddim and dpmpp_2m_sde",
            at_least=0,
            at_most=1,
            only_with=one_of("sample.sampler", "ddim", "dpmpp_2m_sde"),
        ),
        "variance": field(
            "small",
            "of the noise of ancestral",
            one_of=("small", "large"),
            only_with=one_of("sample.sampler", "ancestral"),
        ),
        "churn": field(
            0.0,
            "noise of euler and heun",
            at_least=0,
            only_with=one_of("sample.sampler", "euler", "heun"),
        ),
        "churn_min": field(
            0.0, "smallest sigma / alpha with churn", at_least=0, only_with=CHURNING
        ),
        "churn_max": field(
            math.inf,
            "largest sigma / alpha with churn",
            at_least=0,
            finite=False,
            only_with=CHURNING,
        ),
        "churn_noise": field(1.0, "scale of that noise", at_least=0, only_with=CHURNING),
        "guidance": field(1.0, "scale of guidance; 1: none"),
        "guidance_interval": field(
            (0.0, math.inf),
            "(low, high] of sigma / alpha with guidance",
            at_least=0,
            finite=False,
            only_with=other_than("sample.guidance", 1),
        ),
        "clip": field(False, "clip x0_hat to [-1, 1]"),
    },
    "eval": {
        "vlb_draws": field(
            0, "terms of the variational bound drawn for each image; 0: no bound", at_least=0
        ),
        "ode_tolerance": field(0.0, "of the likelihood by the ODE; 0: without it", at_least=0),
    },
}

smoke = denoisers.smoke


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("diffusion", FIELDS)


def build(
    config: ConfigDict, image_shape: tuple[int, int, int], class_names: tuple[str, ...]
) -> "Diffusion":
    """Builds the diffusion model of a config, and that of its guide."""
    denoisers.check_shared(config, class_names)
    _check(config, image_shape)
    objective, process = config.objective, make_process(config)
    _check_process(config, process)
    _check_ranges(config, process)
    denoisers.check_attention(config, image_shape)
    network, guide = make_network(config, class_names), None
    if config.sample.weaker:
        guide = build(guide_config(config), image_shape, class_names)
    family = Diffusion(
        network=network,
        image_shape=tuple(image_shape),
        label_dropout=objective.label_dropout,
        metadata={"config": config.to_json()},
        process=process,
        target=objective.target,
        sigma_data=objective.sigma_data,
        scale_input=objective.scale_input,
        weighting=objective.weighting,
        time_sampling=objective.time_sampling,
        time_mean=objective.time_mean,
        time_std=objective.time_std,
        sampling=Sampling(**{f.name: config.sample[f.name] for f in dataclasses.fields(Sampling)}),
        guide=guide,
        guide_params=guide_loader(config, network.num_classes),
        vlb_draws=config.eval.vlb_draws,
        ode_tolerance=config.eval.ode_tolerance,
    )
    return dataclasses.replace(family, initial_params=initial_loader(config, family))


def sample(config: ConfigDict, workdir: Path, source: dict[str, Any], step: str) -> Any:
    """Does what --mode=sample asks for: config.sample.task."""
    if config.sample.task == "draw":
        return sample_images(config, workdir, source, step)
    run, state, step = restored_run(config, workdir, step)
    return tasks.perform(run, state, step, workdir, source)


def _check(config: ConfigDict, image_shape: Shape) -> None:
    """Raises a UserError for fields of sampling that do not go together."""
    options = config.sample
    tasks.check(options, image_shape)
    interval = tuple(options.guidance_interval)
    rising = len(interval) == 2 and interval[0] < interval[1]
    require(
        rising, "sample.guidance_interval", interval, "two numbers, (low, high) with low < high"
    )
    most = options.churn_max
    what = f"at most sample.churn_max={most}"
    require(options.churn_min <= most, "sample.churn_min", options.churn_min, what)
    plain = options.sampler == "dpmpp_2m_sde" and options.eta == 0
    what = "above 0 with sample.sampler=dpmpp_2m_sde: without noise it is dpmpp_2m"
    require(not plain, "sample.eta", options.eta, what)
    scale, weaker = options.guidance, options.weaker
    classifier_free = config.model.conditional and config.objective.label_dropout > 0
    possible = scale == 1 or classifier_free or weaker
    require(possible, "sample.guidance", scale, "1 without classes and objective.label_dropout")
    require(scale != 1 or not weaker, "sample.guidance", scale, "another with sample.weaker")


def _check_process(config: ConfigDict, process: Process) -> None:
    """Raises a UserError for a target or a number of steps that the process does not have."""
    target, steps, most = config.objective.target, config.sample.num_steps, process.num_steps
    require(not most or steps <= most, "sample.num_steps", steps, f"at most the process's {most}")
    discrete = target == "velocity" and process.num_steps > 0
    require(not discrete, "objective.target", target, "another for a discrete process")
    blind = target == "eps" and process.prior_std == 1 and process.alpha_sigma(1.0)[0] == 0
    require(not blind, "objective.target", target, "another where alpha reaches 0")


def _check_ranges(config: ConfigDict, process: Process) -> None:
    """Raises a UserError for ranges of noise levels that the sampler never visits."""
    options = config.sample
    (low, high), (least, most) = options.guidance_interval, (options.churn_min, options.churn_max)
    guided = options.guidance != 1 and (low, high) != (0.0, math.inf)
    churned = options.churn > 0 and (least, most) != (0.0, math.inf)
    if not (guided or churned):
        return
    times = SCHEDULES[options.schedule](process, options.num_steps)
    alpha, sigma = (np.asarray(x, np.float64) for x in process.alpha_sigma(times))
    with np.errstate(divide="ignore"):
        s = sigma / alpha
    what = f"around some of the sampler's noise levels, sigma / alpha {s[-1]:.3g} to {s[0]:.3g}"
    within = not guided or ((s > low) & (s <= high)).any()
    require(within, "sample.guidance_interval", (low, high), what)
    within = not churned or ((s >= least) & (s <= most)).any()
    require(within, "sample.churn_min", least, f"with sample.churn_max={most} {what}")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How images are sampled; the fields of config.sample that say so.

    Attributes:
      sampler: a name in `genjax.diffusion.samplers.SAMPLERS`.
      schedule: of its times, a name in `genjax.diffusion.schedules.SCHEDULES`.
      num_steps: times at which it evaluates the denoiser.
      eta: noise of ddim and dpmpp_2m_sde, 0 to 1.
      variance: of the noise of ancestral, "small" or "large".
      churn, churn_min, churn_max, churn_noise: of euler and heun, see `samplers.Churn`.
      guidance: scale of guidance, by the guide where there is one, else classifier-free; 1: none.
      guidance_interval: (low, high] of sigma / alpha, where there is guidance.
      clip: whether x0_hat is clipped to [-1, 1].
      label: class of the new images in figures; -1: all classes in turn.
      seed: of the figures.
    """

    sampler: str = "heun"
    schedule: str = "karras"
    num_steps: int = 18
    eta: float | int = 0.0
    variance: str = "small"
    churn: float | int = 0.0
    churn_min: float | int = 0.0
    churn_max: float | int = math.inf
    churn_noise: float | int = 1.0
    guidance: float | int = 1.0
    guidance_interval: tuple[float | int, float | int] = (0.0, math.inf)
    clip: bool = False
    label: int = -1
    seed: int = 0

    def make_sampler(self, process: Process) -> samplers.Sampler:
        """Returns the sampler for a process."""
        churn = samplers.Churn(self.churn, self.churn_min, self.churn_max, self.churn_noise)
        return samplers.make_sampler(
            self.sampler, process, eta=self.eta, variance=self.variance, churn=churn
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Diffusion(DenoisingFamily):
    """A diffusion or flow model.

      family = Diffusion(UNet(channels=32), (28, 28, 1))
      params, _ = family.init(jax.random.key(0))
      images = family.sample(params, {}, jax.random.split(jax.random.key(1), 16))

    Attributes:
      network, image_shape, label_dropout, initial_params, metadata: see `DenoisingFamily`.
      process: q(x_t | x_0).
      target: what the network predicts, a name in `genjax.diffusion.targets.TARGETS`.
      sigma_data: standard deviation of the pixels.
      scale_input: whether the network's input is divided by its standard deviation.
      weighting: of the noise levels in the loss, a name in `WEIGHTINGS`.
      time_sampling, time_mean, time_std: of t in training, a name in `TIME_SAMPLINGS` and the two
        numbers that it takes.
      sampling: how images are sampled.
      guide: the weaker model of autoguidance (Karras et al. 2024), with the same process and
        classes; its parameters are the entry "guide" of the model state.
      guide_params: () -> {"guide": those parameters}.
      vlb_draws: terms of the variational bound drawn for each evaluated image; 0: no bound.
      ode_tolerance: of the likelihood by the probability-flow ODE; 0: without it.
    """

    process: Process = edm()
    target: str = "F"
    sigma_data: float | int = 0.5
    scale_input: bool = True
    weighting: str = "simple"
    time_sampling: str = "log_normal"
    time_mean: float | int = -1.2
    time_std: float | int = 1.2
    sampling: Sampling = Sampling()
    guide: "Diffusion | None" = None
    guide_params: Callable[[], dict[str, Any]] | None = None
    vlb_draws: int = 0
    ode_tolerance: float | int = 0.0

    # ---- Denoisers ----

    @functools.cached_property
    def parameterization(self) -> Parameterization:
        return Parameterization(self.process, self.target, self.sigma_data, self.scale_input)

    def denoise(
        self,
        params: Params,
        x: Float[Array, "b h w c"],
        t: Time,
        labels: Int[Array, " b"],
    ) -> Float[Array, "b h w c"]:
        """Returns the network's x0_hat of x at time t."""
        return self.parameterization.denoise(self.applied(params, labels), x, t)

    def denoiser(
        self, params: Params, model_state: ModelState, labels: Int[Array, " b"]
    ) -> Denoiser:
        """Returns the denoiser (x, t) -> x0_hat for sampling, guided and clipped."""
        denoise = functools.partial(self.denoise, params)
        options = self.process, self.sampling.guidance, self.sampling.guidance_interval
        if self.guide is not None:
            ours = functools.partial(denoise, labels=labels)
            theirs = functools.partial(self.guide.denoise, model_state["guide"], labels=labels)
            guided = guidance.guided(ours, theirs, *options)
        else:
            no_class = jnp.full_like(labels, self.num_classes)
            guided = guidance.classifier_free(denoise, labels, no_class, *options)
        return guidance.clipped(guided) if self.sampling.clip else guided

    # ---- Training and evaluation ----

    def losses(self, network: Network, batch: Batch, rngs: Rngs) -> Float[Array, " b"]:
        """Returns the loss of each image at a time of its own."""
        draw_times = TIME_SAMPLINGS[self.time_sampling]
        t = draw_times(self.process, rngs("time"), self.time_mean, self.time_std)
        eps = rng.normal(rngs("noise"), self.image_shape)
        return self.parameterization.loss(network, batch["image"], eps, t, self.weighting)

    def loss(
        self,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        rngs: Rngs,
        train: bool = True,
    ) -> tuple[Float[Array, ""], tuple[Metrics, ModelState]]:
        network = self.applied_in_training(params, batch, rngs, train)
        return jnp.mean(self.losses(network, batch, rngs)), ({}, model_state)

    def evaluate(
        self, params: Params, model_state: ModelState, batch: Batch, rngs: Rngs
    ) -> dict[str, Array]:
        network = self.applied(params, batch["label"])
        values = {"loss": self.losses(network, batch, rngs)}
        if self.vlb_draws:
            denoise = functools.partial(self.parameterization.denoise, network)
            args = denoise, self.process, self._vlb_times(), batch["image"], rngs("vlb")
            terms = likelihood.vlb_terms(*args, self.vlb_draws)
            values |= {f"vlb_{name}": term for name, term in terms.items()}
        if self.ode_tolerance:
            values["ode"] = self.ode_nll(params, batch, rngs)
        return values

    def _vlb_times(self) -> Float[Array, " n"]:
        """Returns the times of the chain that the variational bound is for."""
        if not self.process.num_steps:
            return SCHEDULES["log_snr"](self.process, VLB_STEPS)
        return jnp.linspace(self.process.t_max, self.process.t_min, self.process.num_steps)

    def ode_nll(self, params: Params, batch: Batch, rngs: Rngs) -> Float[Array, " b"]:
        """Returns -log p of dequantized images in nats, by the probability-flow ODE."""
        images = likelihood.dequantize(batch["image"], rngs("dequantize"))
        probes = likelihood.rademacher(rngs("probe"), self.image_shape)

        def log_prob(image, probe, label):
            # One image at a time: the solver takes each through steps of its own.
            denoise = lambda x, t: self.denoise(params, x, t, label[None])
            args = denoise, self.process, image[None], probe[None], self.ode_tolerance
            return likelihood.ode_log_prob(*args)[0][0]

        return -jax.vmap(log_prob)(images, probes, batch["label"])

    def summarize(self, values: dict[str, np.ndarray]) -> dict[str, float]:
        means = {name: np.mean(value, dtype=np.float64) for name, value in values.items()}
        numbers, dims = {"loss": means["loss"]}, math.prod(self.image_shape)
        bounds = {k: bits_per_dim_of_mass(v, dims) for k, v in means.items() if k.startswith("vlb")}
        if bounds:
            numbers |= {f"bpd_{name}": value for name, value in bounds.items()}
            numbers["bpd_vlb"] = sum(bounds.values())
        if "ode" in means:
            numbers["bpd_ode_dequantized"] = bits_per_dim_of_density(
                means["ode"], dims, levels=256, data_range=(-1, 1)
            )
        return numbers

    # ---- Sampling ----

    @functools.cached_property
    def sampler(self) -> samplers.Sampler:
        return self.sampling.make_sampler(self.process)

    def times(self) -> Float[Array, " n"]:
        """Returns the times of the sampler, falling."""
        return SCHEDULES[self.sampling.schedule](self.process, self.sampling.num_steps)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        keys: Key[Array, " b"],
        labels: Int[Array, " b"] | None = None,
    ) -> Images:
        labels = no_labels(keys) if labels is None else labels
        denoise = self.denoiser(params, model_state, labels)
        images, _ = samplers.draw(
            self.sampler, denoise, self.process, self.times(), keys, self.image_shape
        )
        return to_unit(images)

    # ---- Figures ----

    def figures(self, params: Params, model_state: ModelState, batch: Batch) -> Pictures:
        root = rng.stream(jax.random.key(self.sampling.seed), "figures")
        keys = rng.per_example(root, jnp.arange(NUM_SHOWN))
        images = jnp.resize(batch["image"], (NUM_SHOWN, *self.image_shape))
        labels = jnp.resize(batch["label"], NUM_SHOWN)
        drawn = self._drawn_jit(params, model_state, images, labels, keys)
        drawn = jax.tree.map(np.asarray, drawn)
        strips = drawn["progress"].swapaxes(0, 1).reshape(-1, *self.image_shape)
        pairs = np.concatenate([drawn["inputs"], drawn["inpainted"]])
        return {
            "progress": plots.grid(plots.to_uint8(strips), tasks.STRIP),
            "inpainted": plots.grid(plots.to_uint8(pairs), NUM_SHOWN),
            "walk": plots.grid(plots.to_uint8(drawn["walk"]), NUM_SHOWN),
        }

    _drawn_jit = functools.cached_property(lambda self: jax.jit(self._drawn))

    def _drawn(self, params, model_state, images, labels, keys) -> dict[str, Array]:
        """Draws the images of all figures, in one batch of three parts.

        The parts are new images, images whose lower half is inpainted, and images of a walk
        between two noises.

        Returns:
          {"progress": x0_hat of new images at STRIP steps [S, n, H, W, C], "inputs", "inpainted",
          "walk": [n, H, W, C]}, in [0, 1].
        """
        n = NUM_SHOWN
        stream = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        noise = rng.normal(stream(0), self.image_shape)
        walk = editing.between(noise[0], noise[-1], n)
        x = self.process.prior_std * jnp.concatenate([noise, noise, walk])
        new = jnp.arange(n) % max(self.num_classes, 1)
        new = new if self.sampling.label < 0 else jnp.full(n, self.sampling.label)
        labels = jnp.concatenate([new, labels, jnp.full(n, labels[0])])
        known = jnp.concatenate([images, images, images])
        upper = jnp.arange(self.image_shape[0])[None, :, None, None] < self.image_shape[0] // 2
        second = ((jnp.arange(3 * n) >= n) & (jnp.arange(3 * n) < 2 * n))[:, None, None, None]
        mask = jnp.broadcast_to(upper & second, known.shape).astype(jnp.float32)
        denoise = guidance.inpainting(self.denoiser(params, model_state, labels), known, mask)
        # Images of the walk share the noise that a stochastic sampler adds.
        added = jnp.concatenate([stream(1), stream(2), keys[jnp.zeros(n, jnp.int32)]])
        noise_at = samplers.keyed_noise(added, self.image_shape)
        args = self.sampler, denoise, self.process, self.times(), x, noise_at
        out, x0_hats = samplers.sample(*args)
        steps = jnp.asarray(np.linspace(0, x0_hats.shape[0] - 1, tasks.STRIP).round().astype(int))
        _, inpainted, walk = jnp.split(to_unit(out), 3)
        progress, inputs = to_unit(x0_hats[steps, :n]), to_unit(known[:n])
        return {"progress": progress, "inputs": inputs, "inpainted": inpainted, "walk": walk}
