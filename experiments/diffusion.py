"""Diffusion and flow models (Ho et al. 2020; Karras et al. 2022; Lipman et al. 2023).

  x_t = alpha(t) x_0 + sigma(t) eps,   loss = E_{t, x_0, eps} w(t) |p - p_net(x_t, t)|^2,

with p any of the targets in `genjax.diffusion.targets`, the squares averaged over dimensions. What
there is to choose: process, target, weighting, the times that are trained on; and for drawing the
sampler, its schedule and guidance, which a trained model takes in any combination.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import choose, require
from experiments.run import Experiment
from genjax import plots, rng
from genjax.diffusion import editing, guidance, likelihood, samplers
from genjax.diffusion.parameterization import Parameterization
from genjax.diffusion.process import PROCESSES
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.targets import TARGETS
from genjax.diffusion.weightings import TIME_SAMPLINGS, WEIGHTINGS
from genjax.errors import UserError
from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_mass
from genjax.models.dit import DiT
from genjax.models.unet import UNet

NETWORKS = {"unet": UNet, "dit": DiT}
NUM_SHOWN = 8
STRIP = 10  # pictures of a progressive strip
VLB_STEPS = 1000  # of the chain that bounds a continuous process


def add_fields(config):
    """The fields of this family beside those that all have, at their defaults."""
    config.experiment = "diffusion"
    config.data.pixels = "symmetric"
    config.process = {"name": "edm"}  # and the numbers of that process, where not its own
    config.objective = {
        "target": "F",
        "sigma_data": 0.5,
        "scale_input": True,  # divide what the network sees by its standard deviation
        "weighting": "simple",
        "time_sampling": "log_normal",
        "time_mean": -1.2,  # of log(sigma / alpha), or of logit(t)
        "time_std": 1.2,
        "label_dropout": 0.0,
    }
    config.sample.update(
        {
            "sampler": "heun",
            "schedule": "karras",
            "num_steps": 18,
            "eta": 0.0,
            "variance": "small",
            "churn": 0.0,
            "churn_min": 0.0,
            "churn_max": math.inf,
            "churn_noise": 1.0,
            "guidance": 1.0,
            "guidance_interval": (0.0, math.inf),
            "clip": False,
        }
    )
    # Terms of the variational bound that are drawn for each image, and the tolerance of the ODE's
    # likelihood; 0 for neither.
    config.eval.update({"vlb_draws": 0, "ode_tolerance": 0.0})


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
    scale = config.sample.guidance
    able = scale == 1 or (num_classes and drop > 0)
    require(able, "sample.guidance", scale, "1 without classes and objective.label_dropout")
    return num_classes


def label_dropper(config, num_classes):
    """(labels, keys) -> labels, some of them those of no class."""

    def dropped(labels, keys):
        gone = rng.uniform(keys, ()) < config.objective.label_dropout
        return jnp.where(gone, num_classes, labels)

    return dropped


def no_labels(keys):
    """What a network without classes is told: int32 [B], which it does not look at."""
    return jnp.zeros(keys.shape[0], jnp.int32)


def build(config, image_shape, class_names, axis_name):
    """The diffusion model of a config, as the shared trainer takes it."""
    del axis_name  # nothing here looks at the batch as a whole
    process = make_process(config)
    objective = config.objective
    target = objective.target
    choose(TARGETS, target, "objective.target")
    continuous = target != "velocity" or not process.num_steps
    require(continuous, "objective.target", target, "another for a discrete process")
    blind = target == "eps" and process.prior_std == 1 and process.alpha_sigma(1.0)[0] == 0
    require(not blind, "objective.target", target, "another where alpha reaches 0")
    choose(WEIGHTINGS, objective.weighting, "objective.weighting")
    draw_times = choose(TIME_SAMPLINGS, objective.time_sampling, "objective.time_sampling")
    require(objective.time_std > 0, "objective.time_std", objective.time_std, "above 0")
    num_classes = check_shared(config, class_names)
    for key in ("vlb_draws", "ode_tolerance"):
        require(config.eval[key] >= 0, f"eval.{key}", config.eval[key], "at least 0")
    sampler, times = check_sampling(config, process)
    network = make_network(config, num_classes)
    par = Parameterization(process, target, objective.sigma_data, objective.scale_input)
    dropped = label_dropper(config, num_classes)
    dims = math.prod(image_shape)

    def init(key):
        x = jnp.zeros((1, *image_shape))
        return network.init(key, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"], {}

    def applied(params, labels, train=False, dropout=None):
        """The network as (x, c_noise) -> prediction."""
        rngs = {"dropout": dropout} if train else {}
        return lambda x, c: network.apply({"params": params}, x, c, labels, train, rngs=rngs)

    def denoiser(params, labels):
        """x0_hat for sampling: of the labels, guided, clipped, as the config says."""
        denoise = guidance.classifier_free(
            lambda x, t, labels: par.denoise(applied(params, labels), x, t),
            labels,
            jnp.full_like(labels, num_classes),
            process,
            config.sample.guidance,
            config.sample.guidance_interval,
        )
        return guidance.clipped(denoise) if config.sample.clip else denoise

    def losses(network, batch, rngs):
        t = draw_times(process, rngs("time"), objective.time_mean, objective.time_std)
        eps = rng.normal(rngs("noise"), image_shape)
        return par.loss(network, batch["image"], eps, t, objective.weighting)

    def loss_fn(params, model_state, batch, rngs, train):
        labels = dropped(batch["label"], rngs("label")) if num_classes else batch["label"]
        net = applied(params, labels, train, rngs.layer("dropout"))
        return jnp.mean(losses(net, batch, rngs)), ({}, model_state)

    def eval_fn(params, model_state, batch, rngs):
        x = batch["image"]
        net = applied(params, batch["label"])
        denoise = functools.partial(par.denoise, net)
        out = {"loss": losses(net, batch, rngs)}
        draws = config.eval.vlb_draws
        if draws:
            chain = jnp.linspace(process.t_max, process.t_min, process.num_steps or 2)
            if not process.num_steps:
                chain = SCHEDULES["log_snr"](process, VLB_STEPS)
            terms = likelihood.vlb_terms(denoise, process, chain, x, rngs("vlb"), draws)
            out |= {f"vlb_{name}": term for name, term in terms.items()}
        if config.eval.ode_tolerance:
            u = likelihood.dequantize(x, rngs("dequantize"))
            probes = jnp.sign(rng.uniform(rngs("probe"), image_shape) - 0.5)
            out["ode"] = -jax.vmap(functools.partial(ode_log_prob, params))(
                u, probes, batch["label"]
            )
        return out

    def ode_log_prob(params, image, probe, label):
        """Of one image: the solver takes each through steps of its own."""
        denoise = functools.partial(par.denoise, applied(params, label[None]))
        tolerance = config.eval.ode_tolerance
        args = denoise, process, image[None], probe[None], tolerance
        return likelihood.ode_log_prob(*args)[0][0]

    def summarize(values):
        means = {name: np.mean(value, dtype=np.float64) for name, value in values.items()}
        out = {"loss": means["loss"]}
        vlb = {k: bits_per_dim_of_mass(v, dims) for k, v in means.items() if k.startswith("vlb")}
        if vlb:
            out |= {f"bpd_{name}": value for name, value in vlb.items()}
            out["bpd_vlb"] = sum(vlb.values())
        if "ode" in means:
            out["bpd_ode_dequantized"] = bits_per_dim_of_density(
                means["ode"], dims, levels=256, data_range=(-1, 1)
            )
        return out

    def sample(params, model_state, keys, labels=None):
        denoise = denoiser(params, no_labels(keys) if labels is None else labels)
        out, _ = samplers.draw(sampler, denoise, process, times(), keys, image_shape)
        return to_unit(out)

    @jax.jit
    def show(params, images, labels, keys):
        """x0_hat along the way, of one batch: new images, the lower halves of others, a walk."""
        n = NUM_SHOWN
        stream = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        noise = rng.normal(stream(0), image_shape)
        walk = editing.between(noise[0], noise[-1], n)
        x = process.prior_std * jnp.concatenate([noise, noise, walk])
        new = jnp.arange(n) % max(num_classes, 1)
        new = new if config.sample.label < 0 else jnp.full(n, config.sample.label)
        labels = jnp.concatenate([new, labels, jnp.full(n, labels[0])])
        known = jnp.concatenate([images, images, images])
        rows = jnp.arange(image_shape[0])[None, :, None, None] < image_shape[0] // 2
        second = ((jnp.arange(3 * n) >= n) & (jnp.arange(3 * n) < 2 * n))[:, None, None, None]
        mask = jnp.broadcast_to(rows & second, known.shape).astype(jnp.float32)
        denoise = guidance.inpainting(denoiser(params, labels), known, mask)
        # Images of the walk share the noise of the way.
        along = jnp.concatenate([stream(1), stream(2), keys[jnp.zeros(n, jnp.int32)]])
        noise_at = samplers.keyed_noise(along, image_shape)
        out, x0s = samplers.sample(sampler, denoise, process, times(), x, noise_at)
        which = jnp.asarray(np.linspace(0, x0s.shape[0] - 1, STRIP).round().astype(int))
        parts = jnp.split(to_unit(out), 3)
        return to_unit(x0s[which, :n]), to_unit(known[:n]), *parts

    def figures(params, model_state, batch):
        images, labels = batch["image"], batch["label"]
        index = jnp.arange(NUM_SHOWN)
        keys = rng.per_example(rng.stream(jax.random.key(config.sample.seed), "figures"), index)
        shown = jnp.resize(images, (NUM_SHOWN, *image_shape)), jnp.resize(labels, NUM_SHOWN)
        strip, known, _, inpainted, walk = map(np.asarray, show(params, *shown, keys))
        strip = plots.to_uint8(strip.swapaxes(0, 1).reshape(-1, *image_shape))
        pairs = plots.to_uint8(np.concatenate([known, inpainted]))
        return {
            "progress": plots.grid(strip, STRIP),
            "inpainted": plots.grid(pairs, NUM_SHOWN),
            "walk": plots.grid(plots.to_uint8(walk), NUM_SHOWN),
        }

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        sample=sample,
        sample_classes=num_classes > 0,
        figures=figures,
    )


def to_unit(x):
    """[-1, 1] -> [0, 1], what is outside cut off."""
    return jnp.clip((x + 1) / 2, 0.0, 1.0)
