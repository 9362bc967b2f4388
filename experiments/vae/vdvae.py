"""Deep hierarchical VAEs (Child 2021; Vahdat & Kautz 2020), see `genjax.models.vdvae`.

  -ELBO(x) = -E_q log p(x | z_1..L) + sum_l E_q KL(q(z_l | z_<l, x) || p(z_l | z_<l)),

with each KL in closed form given the sampled latents of the levels above it, summed over pixels,
positions and channels, averaged over the batch.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.vae.bounds import (
    EVALUATION_FIELDS,
    KL_FIELDS,
    bits_per_dim,
    check_kl,
    find_likelihood,
)
from genjax import plots
from genjax.models import vdvae
from genjax.objectives.divergences import kl_normal
from genjax.objectives.elbo import KL_SCHEDULES, log_normal
from genjax.objectives.likelihoods import LIKELIHOODS, Likelihood, sum_per_example
from genjax.runner.config import make_config
from genjax.runner.family import Family
from genjax.runner.fields import field, require
from genjax.typing import Array, Float, Int, Key, Params, Shape

NUM_RECONSTRUCTIONS = 10
NUM_SHOWN = 6  # images in the picture of the levels
MAX_COUNTS = 8  # numbers of levels in that picture
TEMPERATURES = (0.25, 0.5, 0.75, 1.0)

FIELDS = {
    "model": {
        "width": field(128, "channels", at_least=1),
        "bottleneck": field(32, "channels inside of the blocks", at_least=1),
        "latent_channels": field(16, "of z in each stochastic block", at_least=1),
        "factors": field(
            (2, 2, 2, 4), "between one resolution and the next: 32, 16, 8, 4, 1", at_least=1
        ),
        "encoder_blocks": field((2, 2, 2, 1, 1), "at each resolution, finest first", at_least=0),
        "decoder_blocks": field((2, 4, 3, 2, 1), "at each resolution, finest first", at_least=0),
        "posterior": field("direct", "q alone, or as a residual to p", one_of=vdvae.POSTERIORS),
        "remat": field(False, "compute blocks again for gradients, to save memory"),
    },
    "objective": {
        "likelihood": field("logistic_mixture", one_of=LIKELIHOODS),
        **KL_FIELDS,
    },
    "eval": EVALUATION_FIELDS,
    "sample": {"temperature": field(1.0, "of the prior", at_least=0)},
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("vdvae", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    last = len(config.model.factors)  # the coarsest resolution
    return {
        "optim.warmup_steps": min(config.optim.warmup_steps, 2),
        "nonfinite.policy": "raise",  # "skip" takes XLA:CPU a minute to compile
        "compute_dtype": "float32",
        "model.width": 8,
        "model.bottleneck": 4,
        "model.latent_channels": 2,
        "model.encoder_blocks": tuple(int(i == min(1, last)) for i in range(last + 1)),
        "model.decoder_blocks": tuple(int(i in (1, last)) for i in range(last + 1)),
    }


def build(
    config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]
) -> "HierarchicalVae":
    """Builds the hierarchical VAE of a config."""
    del class_names  # it is unconditional
    _check(config)
    model, objective = config.model, config.objective
    likelihood = find_likelihood(config)
    return HierarchicalVae(
        network=vdvae.VdVae(
            tuple(image_shape),
            likelihood.num_outputs(image_shape[2]),
            dtype=config.compute_dtype,
            **model.to_dict(),
        ),
        likelihood=likelihood,
        beta=objective.beta,
        kl_schedule=objective.kl_schedule,
        kl_steps=objective.kl_steps,
        importance_samples=config.eval.importance_samples,
        temperature=config.sample.temperature,
        pixels=config.data.pixels,
    )


def _check(config: ConfigDict) -> None:
    """Raises a UserError for fields that do not go together."""
    model = config.model
    for key in ("encoder_blocks", "decoder_blocks"):
        sizes, count = model[key], len(model.factors) + 1
        fits = len(sizes) == count and sum(sizes) >= 1
        require(fits, f"model.{key}", sizes, f"{count} numbers, one more than config.model.factors")
    check_kl(config.objective)


@dataclasses.dataclass(frozen=True, eq=False)
class HierarchicalVae(Family):
    """A VAE with a hierarchy of latents, level 0 at the top.

    Attributes:
      network: prior, posterior and decoder.
      likelihood: p(x | z), of images with pixels in [0, 1].
      beta, kl_schedule, kl_steps: weight of the KL, see `genjax.objectives.elbo.KL_SCHEDULES`.
      importance_samples: z for each image of the importance-weighted likelihood in evaluation;
        0: without it.
      temperature: of the prior, when sampling.
      pixels: config.data.pixels; decides whether bits per dimension are defined.
    """

    network: vdvae.VdVae
    likelihood: Likelihood = LIKELIHOODS["bernoulli"]
    beta: float = 1.0
    kl_schedule: str = "constant"
    kl_steps: int = 0
    importance_samples: int = 0
    temperature: float = 1.0
    pixels: str = "binarized_dynamic"

    @property
    def num_dims(self) -> int:
        """Numbers in an image."""
        return math.prod(self.network.image_shape)

    def init(self, key, images=None):
        return vdvae.init(self.network, key), {}

    # ---- Bounds ----

    def elbo_terms(
        self, params: Params, x: Float[Array, "b h w c"], keys: Key[Array, " b"]
    ) -> tuple[dict[str, Array], Float[Array, "b h w o"]]:
        """Computes the terms of the bound in nats.

        Returns:
          ({"recon_nats", "kl_nats", "neg_elbo_nats": [B], "kl_per_level": [B, L]}, the network's
          outputs, which are parameters of the likelihood).
        """
        outputs, levels = self.network.apply({"params": params}, keys, x)
        kl = [sum_per_example(kl_normal(*level["q"], *level["p"])) for level in levels]
        terms = {
            "recon_nats": -self.likelihood.log_prob(x, outputs),
            "kl_per_level": jnp.stack(kl, 1),
        }
        terms["kl_nats"] = jnp.sum(terms["kl_per_level"], axis=1)
        terms["neg_elbo_nats"] = terms["recon_nats"] + terms["kl_nats"]
        return terms, outputs

    def loss(self, params, model_state, batch, rngs, train=True):
        terms, _ = self.elbo_terms(params, batch["image"], rngs("latent"))
        metrics = {name: jnp.mean(term) for name, term in terms.items() if term.ndim == 1}
        metrics["bits_per_dim_elbo"] = metrics["neg_elbo_nats"] / (self.num_dims * math.log(2))
        weight = self.beta * KL_SCHEDULES[self.kl_schedule](rngs.step, self.kl_steps)
        if self.kl_schedule != "constant":
            metrics["kl_weight"] = weight
        return metrics["recon_nats"] + weight * metrics["kl_nats"], (metrics, model_state)

    def importance_nll(
        self, params: Params, x: Float[Array, "b h w c"], keys: Key[Array, " b"]
    ) -> Float[Array, " b"]:
        """Estimates -log p(x) = -log 1/k sum_i p(x, z_i) / q(z_i | x), one z at a time."""

        def add(total, number):
            numbered = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            outputs, levels = self.network.apply({"params": params}, numbered, x)
            log_weight = self.likelihood.log_prob(x, outputs)
            for level in levels:
                q, p = (log_normal(level["z"], m, 2 * s) for m, s in (level["q"], level["p"]))
                log_weight += sum_per_example(p - q)
            return jnp.logaddexp(total, log_weight), None

        nothing = 0 * jnp.sum(x, axis=(1, 2, 3)) - jnp.inf
        total, _ = jax.lax.scan(add, nothing, jnp.arange(self.importance_samples))
        return math.log(self.importance_samples) - total

    # ---- Evaluation ----

    def evaluate(self, params, model_state, batch, rngs):
        x = batch["image"]
        values, outputs = self.elbo_terms(params, x, rngs("latent"))
        error = (self.likelihood.mean(outputs) - x) ** 2
        values["recon_mse"] = jnp.mean(error, axis=(1, 2, 3))
        if self.importance_samples:
            nll = self.importance_nll(params, x, rngs("importance"))
            values[f"nll_nats_iw{self.importance_samples}"] = nll
        return values

    def summarize(self, values):
        scalars = {k: v for k, v in values.items() if k != "kl_per_level"}
        numbers = {k: np.mean(v, dtype=np.float64) for k, v in scalars.items()}
        per_level = np.mean(values["kl_per_level"], axis=0, dtype=np.float64)
        numbers |= {f"kl_nats_level_{n:02d}": kl for n, kl in enumerate(per_level)}
        return numbers | bits_per_dim(numbers, self.likelihood, self.pixels, self.num_dims)

    def evaluation_figures(self, values):
        kl = np.mean(values["kl_per_level"], axis=0)
        return {"kl_per_level": plots.bars(kl, "level, from the top", "KL, nats")}

    # ---- Sampling and drawing ----

    def draw(
        self, params: Params, keys: Key[Array, " b"], temperature: float | Float[Array, ""]
    ) -> Float[Array, "b h w c"]:
        """Samples the prior at a temperature; returns mean images of p(x | z), in [0, 1]."""
        outputs, _ = self.network.apply({"params": params}, keys, temperature=temperature)
        return self.likelihood.mean(outputs)

    def sample(self, params, model_state, keys):
        return self.draw(params, keys, self.temperature)

    def reconstruct(
        self,
        params: Params,
        keys: Key[Array, " b"],
        x: Float[Array, "b h w c"],
        count: int | Int[Array, ""],
    ) -> Float[Array, "b h w c"]:
        """Returns mean images with `count` levels of the posterior, the prior's means below."""
        outputs, _ = self.network.apply(
            {"params": params}, keys, x, num_posterior=count, temperature=0.0
        )
        return self.likelihood.mean(outputs)

    _draw_jit = functools.cached_property(lambda self: jax.jit(self.draw))
    _reconstruct_jit = functools.cached_property(lambda self: jax.jit(self.reconstruct))

    def figures(self, params, model_state, batch):
        x = batch["image"][:NUM_RECONSTRUCTIONS]
        keys = jax.random.split(jax.random.key(0), len(x))
        show = lambda count: self._reconstruct_jit(params, keys, x, count)
        num_levels = self.network.num_levels
        counts = np.unique(np.linspace(0, num_levels, MAX_COUNTS).astype(np.int32))
        by_count = [show(n)[:NUM_SHOWN] for n in counts] + [x[:NUM_SHOWN]]
        images = np.stack([plots.to_uint8(i) for i in by_count], axis=1)
        reconstructed = plots.to_uint8(jnp.concatenate([x, show(num_levels)]))
        sampled = np.concatenate([self._draw_jit(params, keys, t) for t in TEMPERATURES])
        return {
            "levels": plots.grid(images.reshape(-1, *self.network.image_shape), len(by_count)),
            "reconstructions": plots.grid(reconstructed, len(x)),
            "temperatures": plots.grid(plots.to_uint8(sampled), len(x)),
        }
