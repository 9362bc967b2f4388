"""Variational autoencoders (Kingma & Welling 2014; Rezende et al. 2014).

  -ELBO(x) = -E_{q(z|x)} log p(x|z) + KL(q(z|x) || p(z)),   z = mu + sigma * eps,

with the reconstruction summed over pixels, the KL summed over latent dimensions, both averaged over
the batch. The KL is the closed form for a standard normal prior; for other priors it is
log q(z|x) - log p(z) at the sampled z. Networks, likelihood, prior, bound and the weight of the KL
are each a name in the config; with `model.class_conditional` every network gets the class.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.vae import latents
from experiments.vae.bounds import (
    EVALUATION_FIELDS,
    KL_FIELDS,
    bits_per_dim,
    check_kl,
    find_likelihood,
)
from experiments.vae.priors import PRIORS, Prior, StandardNormal
from genjax import plots, rng
from genjax.devices import mean_over_devices
from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.models.vae_conv64 import Conv64Decoder, Conv64Encoder
from genjax.models.vae_mlp import ACTIVATIONS, MlpDecoder, MlpEncoder
from genjax.models.vae_resnet import ResNetDecoder, ResNetEncoder
from genjax.objectives.divergences import kl_standard_normal_per_latent
from genjax.objectives.elbo import KL_SCHEDULES, free_bits, importance_bound, log_normal
from genjax.objectives.likelihoods import LIKELIHOODS, Likelihood
from genjax.rng import Rngs
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Family
from genjax.runner.fields import field, is_set, one_of, require
from genjax.typing import AnyArray, Array, Float, Int, Key, ModelState, Params, Shape

NUM_RECONSTRUCTIONS = 10

# A latent is active if its posterior mean varies more than this over the data (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01

# The report has the KL of each latent for up to this many latents; the figure always has it.
MAX_REPORTED_LATENTS = 32

# config.model.name -> (encoder class, decoder class, fields that both of them take)
NETWORKS = {
    "conv": (ConvEncoder, ConvDecoder, ()),
    "mlp": (MlpEncoder, MlpDecoder, ("activation",)),
    "conv64": (Conv64Encoder, Conv64Decoder, ()),
    "resnet": (ResNetEncoder, ResNetDecoder, ("blocks",)),
}

FIELDS = {
    "model": {
        "name": field("conv", one_of=NETWORKS),
        "latent_dim": field(2, at_least=1),
        "encoder_features": field((32, 64), at_least=1),
        "decoder_features": field((64, 32), at_least=1),
        "encoder_hidden": field(
            16,
            "width of the dense layer of conv",
            at_least=1,
            only_with=one_of("model.name", "conv"),
        ),
        "blocks": field(
            2, "of each stage of resnet", at_least=1, only_with=one_of("model.name", "resnet")
        ),
        "activation": field(
            "relu", "of mlp", one_of=ACTIVATIONS, only_with=one_of("model.name", "mlp")
        ),
        "class_conditional": field(False, "give every network the class"),
    },
    "prior": {
        "name": field("standard_normal", one_of=PRIORS),
        "components": field(
            500,
            "of mixture and vamp",
            at_least=1,
            only_with=one_of("prior.name", "mixture", "vamp"),
        ),
    },
    "objective": {
        "name": field("elbo", one_of=("elbo", "iwae")),
        "num_samples": field(1, "z drawn for each image; the k of IWAE", at_least=1),
        "likelihood": field("bernoulli", one_of=LIKELIHOODS),
        "free_bits": field(
            0.0,
            "nats of each latent that cost nothing",
            at_least=0,
            only_with=is_set("objective.beta"),
        ),
        **KL_FIELDS,
    },
    "eval": {
        **EVALUATION_FIELDS,
        "importance_chunk": field(
            50,
            "importance samples drawn at a time; the last ones may be fewer",
            at_least=1,
            only_with=is_set("eval.importance_samples"),
        ),
    },
    "sample": {"temperature": field(1.0, "of the prior", at_least=0)},
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("vae", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    few = {"elbo": 1, "iwae": 4}[config.objective.name]
    importance = min(config.eval.importance_samples, 4)
    return {
        "model.latent_dim": min(config.model.latent_dim, 4),
        "model.encoder_features": (4, 8)[-len(config.model.encoder_features) :],
        "model.decoder_features": (8, 4, 4, 4)[: len(config.model.decoder_features)],
        "model.encoder_hidden": 8,
        "objective.num_samples": few,
        "eval.importance_samples": importance,
        "eval.importance_chunk": 2,
    }


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "Vae":
    """Builds the VAE of a config."""
    _check(config, class_names)
    model, objective = config.model, config.objective
    likelihood = find_likelihood(config)
    encoder, decoder, shared = NETWORKS[model.name]
    rest = {"dtype": config.compute_dtype} | {name: model[name] for name in shared}
    hidden = {"hidden": model.encoder_hidden} if model.name == "conv" else {}
    output_shape = (*image_shape[:2], likelihood.num_outputs(image_shape[2]))
    return Vae(
        encoder=encoder(model.latent_dim, model.encoder_features, **hidden, **rest),
        decoder=decoder(output_shape, model.decoder_features, **rest),
        image_shape=image_shape,
        latent_dim=model.latent_dim,
        likelihood=likelihood,
        prior=PRIORS[config.prior.name](config.prior.components),
        class_names=tuple(class_names),
        class_conditional=model.class_conditional,
        bound=objective.name,
        num_samples=objective.num_samples,
        beta=objective.beta,
        kl_schedule=objective.kl_schedule,
        kl_steps=objective.kl_steps,
        free_bits=objective.free_bits,
        importance_samples=config.eval.importance_samples,
        importance_chunk=config.eval.importance_chunk,
        temperature=config.sample.temperature,
        pixels=config.data.pixels,
    )


def _check(config: ConfigDict, class_names: tuple[str, ...]) -> None:
    """Raises a UserError for fields that do not go together."""
    model, objective, prior = config.model, config.objective, config.prior
    require(
        not model.class_conditional or len(class_names) > 1,
        "model.class_conditional",
        True,
        f"False: config.data.name='{config.data.name}' has no classes",
    )
    widths, least = model.decoder_features, "of at least one element, the first decoded width"
    require(widths or model.name == "mlp", "model.decoder_features", widths, least)
    vamp = prior.name == "vamp" and model.class_conditional
    require(not vamp, "prior.name", "vamp", "another with config.model.class_conditional=True")
    check_kl(objective)
    closed = objective.free_bits == 0 or prior.name == "standard_normal"
    what = f"0 with config.prior.name={prior.name}"
    require(closed, "objective.free_bits", objective.free_bits, what)
    if objective.name == "iwae":  # its bound has no KL term that could be weighted
        for key, neutral in {"beta": 1.0, "kl_schedule": "constant", "free_bits": 0.0}.items():
            value = objective[key]
            require(value == neutral, f"objective.{key}", value, f"{neutral} with iwae")


@dataclasses.dataclass(frozen=True, eq=False)
class Vae(Family):
    """A VAE: networks and settings; parameters and batches are arguments of its methods.

    Attributes:
      encoder: (x [B, H, W, C], y [B, K] or None, train) -> mean, log-variance of q(z | x), [B, D].
      decoder: (z [B, D], y, train) -> outputs [B, H, W, C'], parameters of the likelihood.
      image_shape: (H, W, C).
      latent_dim: D.
      likelihood: p(x | z), of images with pixels in [0, 1].
      prior: p(z).
      class_names: of the dataset.
      class_conditional: whether the networks get the class, one-hot.
      bound: "elbo" or "iwae" (Burda et al. 2016).
      num_samples: z drawn for each image; the k of IWAE.
      beta, kl_schedule, kl_steps: weight of the KL, see `genjax.objectives.elbo.KL_SCHEDULES`.
      free_bits: nats of each latent that cost nothing.
      importance_samples, importance_chunk: z for each image of the importance-weighted likelihood
        in evaluation, and how many of them at a time; 0: without it.
      temperature: of the prior, when sampling.
      pixels: config.data.pixels; decides whether bits per dimension are defined.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: Shape
    latent_dim: int
    likelihood: Likelihood = LIKELIHOODS["bernoulli"]
    prior: Prior = StandardNormal()
    class_names: tuple[str, ...] = ()
    class_conditional: bool = False
    bound: str = "elbo"
    num_samples: int = 1
    beta: float = 1.0
    kl_schedule: str = "constant"
    kl_steps: int = 0
    free_bits: float = 0.0
    importance_samples: int = 0
    importance_chunk: int = 50
    temperature: float = 1.0
    pixels: str = "binarized_dynamic"

    @property
    def num_init_examples(self) -> int:
        return self.prior.num_init_examples

    @property
    def sample_takes_labels(self) -> bool:
        return self.class_conditional

    @property
    def num_classes(self) -> int:
        """Classes that the networks get; 0 for none."""
        return len(self.class_names) if self.class_conditional else 0

    # ---- Networks ----

    def init(self, key, images=None):
        encoder_key, decoder_key = jax.random.split(key)
        y = jnp.zeros((1, self.num_classes)) if self.num_classes else None
        variables = {
            "encoder": self.encoder.init(encoder_key, jnp.zeros((1, *self.image_shape)), y),
            "decoder": self.decoder.init(decoder_key, jnp.zeros((1, self.latent_dim)), y),
        }
        params = {name: v["params"] for name, v in variables.items()}
        stats = {name: {k: v[k] for k in v if k != "params"} for name, v in variables.items()}
        prior = self.prior.init(key, self.latent_dim, images)
        if prior is not None:
            params["prior"] = prior
        return params, {name: s for name, s in stats.items() if s}

    def _apply(self, name, params, model_state, *inputs, train=False):
        """Returns the output of "encoder" or "decoder", and the new model state."""
        network = {"encoder": self.encoder, "decoder": self.decoder}[name]
        variables = {"params": params[name], **model_state.get(name, {})}
        if not (train and name in model_state):
            return network.apply(variables, *inputs), model_state
        mutable = list(model_state[name])
        out, new = network.apply(variables, *inputs, train=True, mutable=mutable)
        return out, {**model_state, name: new}

    def one_hot(self, labels: Int[AnyArray, " b"] | None) -> Float[Array, "b k"] | None:
        """Returns labels int32 [B] as the networks take them, [B, K], or None without classes."""
        return jax.nn.one_hot(labels, self.num_classes) if self.num_classes else None

    def encode(
        self, params: Params, model_state: ModelState, x: Array, y: Array | None = None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns mean and log-variance of q(z | x)."""
        return self._apply("encoder", params, model_state, x, y)[0]

    def decode(
        self,
        params: Params,
        model_state: ModelState,
        z: Float[Array, "b d"],
        y: Array | None = None,
    ) -> Float[Array, "b h w c"]:
        """Returns the mean images of p(x | z), in [0, 1]."""
        return self.likelihood.mean(self._apply("decoder", params, model_state, z, y)[0])

    def log_likelihood(self, params, model_state, x, y, z, train=False):
        """Returns log p(x | z) [B, k] for z [B, k, D], and the new model state."""
        k = z.shape[1]
        repeat = lambda v: v if v is None or k == 1 else jnp.repeat(v, k, axis=0)
        z = z.reshape(-1, self.latent_dim)
        outputs, model_state = self._apply(
            "decoder", params, model_state, z, repeat(y), train=train
        )
        return self.likelihood.log_prob(repeat(x), outputs).reshape(-1, k), model_state

    def log_prior(self, params, model_state, z):
        """Returns log p(z) [...] of z [..., D]."""
        encode = functools.partial(self.encode, params, model_state)
        return self.prior.log_prob(params.get("prior"), encode, z)

    def sample_prior(self, params, model_state, keys, temperature):
        """Draws z [B, D] from the prior, row i by keys[i]."""
        encode = functools.partial(self.encode, params, model_state)
        return self.prior.sample(params.get("prior"), encode, keys, self.latent_dim, temperature)

    # ---- Bounds ----

    def bound_terms(
        self,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        keys: Key[Array, " b"],
        num_samples: int,
        train: bool,
    ) -> tuple[dict[str, Array], tuple[Array, Array], ModelState]:
        """Computes the terms of the bounds in nats.

        Returns:
          ({"recon_nats", "kl_nats", "neg_elbo_nats" and, where they are defined, "iwae_nats": [B],
          "kl_per_latent": [B, D]}, (mean, log-variance) of q(z | x), new model state);
          log p(x | z) is averaged over `num_samples`.
        """
        x, y = batch["image"], self.one_hot(batch["label"])
        posterior, model_state = self._apply("encoder", params, model_state, x, y, train=train)
        z = reparameterize(posterior, rng.normal(keys, (num_samples, self.latent_dim)))
        log_px, model_state = self.log_likelihood(params, model_state, x, y, z, train)
        terms = {"recon_nats": -jnp.mean(log_px, axis=1)}
        if self.bound == "iwae" or not self.prior.closed_form:
            log_ratio = log_posterior(posterior, z) - self.log_prior(params, model_state, z)
            terms["iwae_nats"] = -importance_bound(log_px - log_ratio)
        if self.prior.closed_form:
            terms["kl_per_latent"] = kl_standard_normal_per_latent(*posterior)
            terms["kl_nats"] = jnp.sum(terms["kl_per_latent"], axis=-1)
        else:
            terms["kl_nats"] = jnp.mean(log_ratio, axis=1)
        terms["neg_elbo_nats"] = terms["recon_nats"] + terms["kl_nats"]
        return terms, posterior, model_state

    @property
    def whole_batch(self):
        return "objective.free_bits, which are those of a batch" if self.free_bits else ""

    def loss(self, params, model_state, batch, rngs, train=True):
        terms, _, model_state = self.bound_terms(
            params, model_state, batch, rngs("latent"), self.num_samples, train
        )
        metrics = {name: jnp.mean(term) for name, term in terms.items() if term.ndim == 1}
        if self.bound == "iwae":
            return metrics["iwae_nats"], (metrics, model_state)
        kl = metrics["kl_nats"]
        if self.free_bits:
            mean_kl = mean_over_devices(jnp.mean(terms["kl_per_latent"], axis=0))
            kl = free_bits(mean_kl, self.free_bits)
        weight = self.beta * KL_SCHEDULES[self.kl_schedule](rngs.step, self.kl_steps)
        if self.kl_schedule != "constant":
            metrics["kl_weight"] = weight
        return metrics["recon_nats"] + weight * kl, (metrics, model_state)

    def importance_nll(
        self, params: Params, model_state: ModelState, batch: Batch, keys: Key[Array, " b"]
    ) -> Float[Array, " b"]:
        """Estimates -log p(x) = -log 1/k sum_i p(x, z_i) / q(z_i | x), k = importance_samples."""
        x, y, k = batch["image"], self.one_hot(batch["label"]), self.importance_samples
        posterior = self.encode(params, model_state, x, y)

        def add_chunk(total, first, size):
            # Keyed by its number: z_i of an image is the same whatever the chunks.
            numbers = first + jnp.arange(size)
            numbered = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            noise = jax.vmap(lambda i: rng.normal(numbered(i), (self.latent_dim,)), 0, 1)(numbers)
            z = reparameterize(posterior, noise)
            log_px, _ = self.log_likelihood(params, model_state, x, y, z)
            log_ratio = log_posterior(posterior, z) - self.log_prior(params, model_state, z)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_px - log_ratio, axis=1)), None

        total, chunk = 0 * posterior[0][:, 0] - jnp.inf, min(self.importance_chunk, k)
        full, rest = k - k % chunk, k % chunk
        add_full = functools.partial(add_chunk, size=chunk)
        total, _ = jax.lax.scan(add_full, total, jnp.arange(0, full, chunk))
        if rest:
            total, _ = add_chunk(total, full, rest)
        return math.log(k) - total

    # ---- Evaluation ----

    def evaluate(self, params, model_state, batch, rngs: Rngs):
        terms, (mean, _), _ = self.bound_terms(
            params, model_state, batch, rngs("latent"), num_samples=1, train=False
        )
        shown = self.decode(params, model_state, mean, self.one_hot(batch["label"]))
        values = {
            **{name: term for name, term in terms.items() if name != "iwae_nats"},
            "recon_mse": jnp.mean((shown - batch["image"]) ** 2, axis=(1, 2, 3)),
            "posterior_mean": mean,
            "label": batch["label"],
        }
        if self.importance_samples:
            nll = self.importance_nll(params, model_state, batch, rngs("importance"))
            values[f"nll_nats_iw{self.importance_samples}"] = nll
        return values

    def summarize(self, values):
        arrays = ("kl_per_latent", "posterior_mean", "label")
        numbers = {k: np.mean(v, dtype=np.float64) for k, v in values.items() if k not in arrays}
        variances = np.var(values["posterior_mean"], axis=0, dtype=np.float64)
        numbers["active_units"] = np.sum(variances > ACTIVE_VARIANCE)
        if "kl_per_latent" in values and self.latent_dim <= MAX_REPORTED_LATENTS:
            means = np.mean(values["kl_per_latent"], axis=0, dtype=np.float64)
            numbers |= {f"kl_nats_latent_{d:02d}": kl for d, kl in enumerate(means)}
        dims = math.prod(self.image_shape)
        return numbers | bits_per_dim(numbers, self.likelihood, self.pixels, dims)

    def evaluation_figures(self, values):
        pictures = {"latents": latents.scatter(values, self.class_names)}
        if "kl_per_latent" in values:
            kl = np.mean(values["kl_per_latent"], axis=0)
            pictures["kl_per_latent"] = plots.bars(kl, "latent", "KL, nats")
        return pictures

    # ---- Sampling and drawing ----

    def sample(self, params, model_state, keys, labels=None):
        z = self.sample_prior(params, model_state, keys, self.temperature)
        return self.decode(params, model_state, z, self.one_hot(labels))

    _encode_jit = functools.cached_property(lambda self: jax.jit(self.encode))
    _decode_jit = functools.cached_property(lambda self: jax.jit(self.decode))
    _sample_prior_jit = functools.cached_property(lambda self: jax.jit(self.sample_prior))

    def figures(self, params, model_state, batch):
        x, y = batch["image"], self.one_hot(batch["label"])
        means, _ = self._encode_jit(params, model_state, x, y)

        def images_of(z, y=None):
            """Decodes z [N, D] to uint8 images, with classes y, by default that of image 0."""
            if self.num_classes and y is None:
                y = self.one_hot(np.full(len(z), batch["label"][0]))
            z = jnp.asarray(z, jnp.float32)
            return plots.to_uint8(self._decode_jit(params, model_state, z, y))

        def prior_z(keys, temperature):
            return np.asarray(self._sample_prior_jit(params, model_state, keys, temperature))

        count = min(NUM_RECONSTRUCTIONS, len(x))
        shown = np.concatenate([plots.to_uint8(x)[:count], images_of(means, y)[:count]])
        pictures = latents.pictures(images_of, np.asarray(means), prior_z, self.num_classes)
        return {"reconstructions": plots.grid(shown, count), **pictures}


def reparameterize(
    posterior: tuple[Float[Array, "b d"], Float[Array, "b d"]], noise: Float[Array, "b k d"]
) -> Float[Array, "b k d"]:
    """Returns z = mean + sigma * noise of a posterior (mean, log-variance)."""
    mean, log_variance = posterior
    return mean[:, None] + jnp.exp(0.5 * log_variance)[:, None] * noise


def log_posterior(
    posterior: tuple[Float[Array, "b d"], Float[Array, "b d"]], z: Float[Array, "b k d"]
) -> Float[Array, "b k"]:
    """Returns log q(z | x)."""
    return log_normal(z, *(p[:, None] for p in posterior))
