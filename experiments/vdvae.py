"""Deep hierarchical VAEs (Child 2021; Vahdat & Kautz 2020), see `genjax.models.vdvae`.

  -ELBO(x) = -E_q log p(x | z_1..L) + sum_l E_q KL(q(z_l | z_<l, x) || p(z_l | z_<l)),

each KL in closed form at the z above it that was drawn; summed over pixels, positions and channels,
averaged over the batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import base_config, choose, require
from experiments.run import Experiment
from experiments.vae import bits_per_dim, check_kl, check_likelihood
from genjax import plots
from genjax.models import vdvae
from genjax.objectives.divergences import kl_normal
from genjax.objectives.elbo import KL_SCHEDULES, log_normal
from genjax.objectives.likelihoods import sum_per_example

NUM_RECONSTRUCTIONS = 10
NUM_SHOWN = 6  # images of the picture of the levels
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)


def vdvae_config():
    """`base_config` and the fields of this family."""
    config = base_config()
    config.experiment = "vdvae"
    config.model = {
        "width": 128,
        "bottleneck": 32,
        "latent_channels": 16,
        "factors": (2, 2, 2, 4),  # 32, 16, 8, 4, 1; from fine to coarse, as the blocks
        "encoder_blocks": (2, 2, 2, 1, 1),
        "decoder_blocks": (2, 4, 3, 2, 1),
        "posterior": "direct",  # or "residual"
    }
    config.objective = {
        "likelihood": "logistic_mixture",
        "beta": 1.0,
        "kl_schedule": "constant",  # or "linear" over kl_steps, or "cyclic" every kl_steps
        "kl_steps": 0,
    }
    config.eval.importance_samples = 0  # of z for each image, for eval/nll_nats_iw<k>; 0: without
    config.sample.temperature = 1.0  # of the prior
    return config


def build(config, image_shape, class_names, axis_name):
    """The hierarchical VAE of a config, as the shared trainer takes it."""
    del class_names, axis_name  # unconditional, without batch statistics
    likelihood = _check(config)
    objective, samples = config.objective, config.eval.importance_samples
    schedule = KL_SCHEDULES[objective.kl_schedule]
    network = vdvae.VdVae(
        tuple(image_shape),
        likelihood.num_outputs(image_shape[2]),
        dtype=config.compute_dtype,
        **config.model.to_dict(),
    )

    def elbo_terms(params, x, keys):
        """recon_nats [B], kl_nats [B], kl_per_level [B, L], and the mean image."""
        outputs, levels = network.apply({"params": params}, keys, x)
        kl = [sum_per_example(kl_normal(*level["q"], *level["p"])) for level in levels]
        terms = {"recon_nats": -likelihood.log_prob(x, outputs), "kl_per_level": jnp.stack(kl, 1)}
        terms["kl_nats"] = jnp.sum(terms["kl_per_level"], axis=1)
        terms["neg_elbo_nats"] = terms["recon_nats"] + terms["kl_nats"]
        return terms, outputs

    def loss_fn(params, model_state, batch, rngs, train):
        terms, _ = elbo_terms(params, batch["image"], rngs("latent"))
        metrics = {name: jnp.mean(term) for name, term in terms.items() if term.ndim == 1}
        metrics["bits_per_dim_elbo"] = metrics["neg_elbo_nats"] / (
            math.prod(image_shape) * math.log(2)
        )
        weight = objective.beta * schedule(rngs.step, objective.kl_steps)
        if objective.kl_schedule != "constant":
            metrics["kl_weight"] = weight
        return metrics["recon_nats"] + weight * metrics["kl_nats"], (metrics, model_state)

    def importance_nll(params, x, keys):
        """-log 1/k sum_i p(x, z_i) / q(z_i | x): [B]; one z at a time."""

        def add(total, number):
            numbered = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            outputs, levels = network.apply({"params": params}, numbered, x)
            log_weight = likelihood.log_prob(x, outputs)
            for level in levels:
                q, p = (log_normal(level["z"], m, 2 * s) for m, s in (level["q"], level["p"]))
                log_weight += sum_per_example(p - q)
            return jnp.logaddexp(total, log_weight), None

        none = 0 * jnp.sum(x, axis=(1, 2, 3)) - jnp.inf
        total, _ = jax.lax.scan(add, none, jnp.arange(samples))
        return math.log(samples) - total

    def eval_fn(params, model_state, batch, rngs):
        x = batch["image"]
        values, outputs = elbo_terms(params, x, rngs("latent"))
        error = (likelihood.mean(outputs) - x) ** 2
        values["recon_mse"] = jnp.mean(error, axis=(1, 2, 3))
        if samples:
            values[f"nll_nats_iw{samples}"] = importance_nll(params, x, rngs("importance"))
        return values

    def summarize(values):
        values = dict(values)
        per_level = np.mean(values.pop("kl_per_level"), axis=0, dtype=np.float64)
        found = {k: np.mean(v, dtype=np.float64) for k, v in values.items()}
        found |= {f"kl_nats_level_{n:02d}": kl for n, kl in enumerate(per_level)}
        return found | bits_per_dim(found, likelihood, config.data.pixels, math.prod(image_shape))

    def eval_figures(values):
        kl = np.mean(values["kl_per_level"], axis=0)
        return {"kl_per_level": plots.bars(kl, "level, from the top", "KL, nats")}

    def draw(params, keys, temperature):
        outputs, _ = network.apply({"params": params}, keys, temperature=temperature)
        return likelihood.mean(outputs)

    def sample(params, model_state, keys):
        return draw(params, keys, config.sample.temperature)

    draw_jit = jax.jit(draw)

    @jax.jit
    def upper_levels(params, keys, x, count):
        """The images of the first `count` levels' posterior, the likeliest below."""
        variables = {"params": params}
        outputs, _ = network.apply(variables, keys, x, num_posterior=count, temperature=0.0)
        return likelihood.mean(outputs)

    def figures(params, model_state, batch):
        x = batch["image"][:NUM_RECONSTRUCTIONS]
        keys = jax.random.split(jax.random.key(0), len(x))
        show = lambda count: upper_levels(params, keys, x, count)
        counts = np.unique(np.linspace(0, network.num_levels, 8).astype(np.int32))
        by_count = [show(n)[:NUM_SHOWN] for n in counts] + [x[:NUM_SHOWN]]
        images = np.stack([plots.to_uint8(i) for i in by_count], axis=1)
        reconstructed = plots.to_uint8(jnp.concatenate([x, show(network.num_levels)]))
        drawn = np.concatenate([draw_jit(params, keys, t) for t in TEMPERATURES])
        return {
            "levels": plots.grid(images.reshape(-1, *image_shape), len(by_count)),
            "reconstructions": plots.grid(reconstructed, len(x)),
            "temperatures": plots.grid(plots.to_uint8(drawn), len(x)),
        }

    return Experiment(
        init=lambda key: (vdvae.init(network, key), {}),
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        eval_figures=eval_figures,
        sample=sample,
        figures=figures,
    )


def _check(config):
    """The `Likelihood` of a config; a UserError for what does not go together."""
    model = config.model
    for key in ("width", "bottleneck", "latent_channels", "factors"):
        sizes = model[key]
        whole = all(n >= 1 for n in (sizes if isinstance(sizes, tuple) else (sizes,)))
        require(whole, f"model.{key}", sizes, "at least 1")
    for key in ("encoder_blocks", "decoder_blocks"):
        sizes, count = model[key], len(model.factors) + 1
        fits = len(sizes) == count and min(sizes) >= 0 and sum(sizes) >= 1
        require(fits, f"model.{key}", sizes, f"{count} numbers, one more than config.model.factors")
    choose(vdvae.POSTERIORS, model.posterior, "model.posterior")
    check_kl(config.objective)
    likelihood = check_likelihood(config)
    samples, temperature = config.eval.importance_samples, config.sample.temperature
    require(samples >= 0, "eval.importance_samples", samples, "at least 0")
    require(temperature >= 0, "sample.temperature", temperature, "at least 0")
    return likelihood
