"""Diffusion and flow models (Ho et al. 2020; Karras et al. 2022; Lipman et al. 2023).

  x_t = alpha(t) x_0 + sigma(t) eps,   loss = E_{t, x_0, eps} w(t) |p - p_net(x_t, t)|^2,

with p any of the targets in `genjax.diffusion.targets`, the squares averaged over dimensions. What
there is to choose: process, target, weighting, the times that are trained on; and for drawing the
sampler, its schedule and guidance, which a trained model takes in any combination.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments import diffusion_tasks, evaluation
from experiments.config import choose, require
from experiments.denoisers import (
    label_dropper,
    make_drawing,
    make_model,
    no_labels,
    to_unit,
    weaker_config,
)
from experiments.pretrained import export, pretrained
from experiments.run import Experiment
from genjax import plots, rng
from genjax.diffusion import editing, guidance, likelihood, samplers
from genjax.diffusion.schedules import SCHEDULES
from genjax.diffusion.weightings import TIME_SAMPLINGS, WEIGHTINGS
from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_mass

NUM_SHOWN = 8
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
    config.init_from = ""  # a trained run's workdir, or a file of weights: begin with those
    config.sample.update(diffusion_tasks.FIELDS)
    config.sample.update(
        {
            "weaker": "",  # a workdir: guidance is away from what that run says (autoguidance)
            "weaker_step": "latest",  # its checkpoint: a number, latest or best
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


def build(config, image_shape, class_names, axis_name):
    """The diffusion model of a config, as the shared trainer takes it."""
    del axis_name  # nothing here looks at the batch as a whole
    objective = config.objective
    choose(WEIGHTINGS, objective.weighting, "objective.weighting")
    draw_times = choose(TIME_SAMPLINGS, objective.time_sampling, "objective.time_sampling")
    require(objective.time_std > 0, "objective.time_std", objective.time_std, "above 0")
    for key in ("vlb_draws", "ode_tolerance"):
        require(config.eval[key] >= 0, f"eval.{key}", config.eval[key], "at least 0")
    model = make_model(config, class_names)
    network, par, num_classes = model.network, model.par, model.num_classes
    drawing = make_drawing(config, model, image_shape, class_names)
    diffusion_tasks.check(config)
    process, sampler, times = drawing.process, drawing.sampler, drawing.times
    applied, denoiser = model.applied, drawing.denoiser
    dropped = label_dropper(config, num_classes)
    dims = math.prod(image_shape)

    def init(key):
        x = jnp.zeros((1, *image_shape))
        return network.init(key, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"], {}

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
        labels = no_labels(keys) if labels is None else labels
        denoise = denoiser(params, model_state, labels)
        out, _ = samplers.draw(sampler, denoise, process, times(), keys, image_shape)
        return to_unit(out)

    @jax.jit
    def show(params, model_state, images, labels, keys):
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
        denoise = guidance.inpainting(denoiser(params, model_state, labels), known, mask)
        # Images of the walk share the noise of the way.
        along = jnp.concatenate([stream(1), stream(2), keys[jnp.zeros(n, jnp.int32)]])
        noise_at = samplers.keyed_noise(along, image_shape)
        out, x0s = samplers.sample(sampler, denoise, process, times(), x, noise_at)
        which = jnp.asarray(
            np.linspace(0, x0s.shape[0] - 1, diffusion_tasks.STRIP).round().astype(int)
        )
        parts = jnp.split(to_unit(out), 3)
        return to_unit(x0s[which, :n]), to_unit(known[:n]), *parts

    def figures(params, model_state, batch):
        images, labels = batch["image"], batch["label"]
        index = jnp.arange(NUM_SHOWN)
        keys = rng.per_example(rng.stream(jax.random.key(config.sample.seed), "figures"), index)
        shown = jnp.resize(images, (NUM_SHOWN, *image_shape)), jnp.resize(labels, NUM_SHOWN)
        strip, known, _, inpainted, walk = map(np.asarray, show(params, model_state, *shown, keys))
        strip = plots.to_uint8(strip.swapaxes(0, 1).reshape(-1, *image_shape))
        pairs = plots.to_uint8(np.concatenate([known, inpainted]))
        return {
            "progress": plots.grid(strip, diffusion_tasks.STRIP),
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
        pretrained=pretrained(config, init, network, image_shape),
        export=functools.partial(export, config, network),
        beside=functools.partial(beside, config, num_classes) if config.sample.weaker else None,
    )


def beside(config, num_classes):
    """{"weaker": parameters}, as they are evaluated, of the run in config.sample.weaker."""
    where = config.sample.weaker
    run, state, _ = evaluation.restored(weaker_config(config), where, config.sample.weaker_step)
    there = len(run.train_data.class_names) if num_classes else 0
    require(there == num_classes, "sample.weaker", where, f"a run with {num_classes} classes")
    return {"weaker": run.eval_tree(state)[0]}


def sample(config, workdir, source, step):
    """What --mode=sample does: config.sample.task."""
    if config.sample.task == "draw":
        return evaluation.sample_new(config, workdir, source, step)
    run, state, step = evaluation.restored(config, workdir, step)
    shape, class_names = tuple(run.config.data.image_shape), run.train_data.class_names
    drawing = make_drawing(run.config, make_model(run.config, class_names), shape, class_names)
    return diffusion_tasks.perform(run, state, step, drawing, workdir, source)
