"""Variational autoencoders (Kingma & Welling 2014; Rezende et al. 2014).

  -ELBO(x) = -E_{q(z|x)} log p(x|z) + KL(q(z|x) || p(z)),   z = mu + sigma * eps,

the reconstruction summed over pixels, the KL summed over latent dimensions, both averaged over the
batch. The KL is the closed form for a standard normal prior, else log q(z|x) - log p(z) at the z
that was drawn. Networks, likelihoods, priors, the bound and what is done to its KL term are each a
name in the config; every network is told the class as well with `model.class_conditional`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments import latents
from experiments.config import base_config, choose, require
from experiments.run import Experiment
from genjax import plots, rng
from genjax.data.transforms import unit
from genjax.metrics.likelihood import bits_per_dim_of_density, bits_per_dim_of_mass
from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.models.vae_conv64 import Conv64Decoder, Conv64Encoder
from genjax.models.vae_mlp import ACTIVATIONS, MlpDecoder, MlpEncoder
from genjax.models.vae_resnet import ResNetDecoder, ResNetEncoder
from genjax.objectives.divergences import kl_standard_normal_per_latent
from genjax.objectives.elbo import KL_SCHEDULES, free_bits, importance_bound, log_normal
from genjax.objectives.likelihoods import LIKELIHOODS
from genjax.objectives.priors import mixture_log_prob, mixture_sample
from genjax.train.parallel import mean_over_devices

NUM_RECONSTRUCTIONS = 10

# A latent is active if its posterior mean varies more than this over the data (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01

# The KL of each latent is in the report up to so many of them, and in a figure always.
MAX_REPORTED_LATENTS = 32


def vae_config():
    """`base_config` and the fields of this family."""
    config = base_config()
    config.experiment = "vae"
    config.model = {
        "name": "conv",
        "latent_dim": 2,
        "encoder_features": (32, 64),
        "decoder_features": (64, 32),
        "encoder_hidden": 16,  # of "conv"
        "blocks": 2,  # of each stage of "resnet"
        "activation": "relu",  # of "mlp", or "tanh"
        "class_conditional": False,
    }
    # "standard_normal", or of so many components: "mixture" of normals, "vamp".
    config.prior = {"name": "standard_normal", "components": 500}
    config.objective = {
        "name": "elbo",  # or "iwae"
        "num_samples": 1,  # of z for each image; the k of IWAE
        "likelihood": "bernoulli",
        "beta": 1.0,
        "kl_schedule": "constant",  # or "linear" over kl_steps, or "cyclic" every kl_steps
        "kl_steps": 0,
        "free_bits": 0.0,  # nats of each latent
    }
    config.eval.importance_samples = 0  # of z for each image, for eval/nll_nats_iw<k>; 0: without
    config.eval.importance_chunk = 50  # so many of them at a time
    config.sample.temperature = 1.0  # of the prior
    return config


def conv(config, image_shape, output_shape, axis_name):
    """The tutorial's convolutional pair of networks."""
    model, dtype = config.model, config.compute_dtype
    encoder = ConvEncoder(model.latent_dim, model.encoder_features, model.encoder_hidden, dtype)
    return encoder, ConvDecoder(output_shape, model.decoder_features, dtype)


def mlp(config, image_shape, output_shape, axis_name):
    model = config.model
    rest = (choose(tuple(ACTIVATIONS), model.activation, "model.activation"), config.compute_dtype)
    encoder = MlpEncoder(model.latent_dim, model.encoder_features, *rest)
    return encoder, MlpDecoder(output_shape, model.decoder_features, *rest)


def conv64(config, image_shape, output_shape, axis_name):
    model, rest = config.model, (axis_name, config.compute_dtype)
    encoder = Conv64Encoder(model.latent_dim, model.encoder_features, *rest)
    return encoder, Conv64Decoder(output_shape, model.decoder_features, *rest)


def resnet(config, image_shape, output_shape, axis_name):
    model, rest = config.model, (config.model.blocks, config.compute_dtype)
    encoder = ResNetEncoder(model.latent_dim, model.encoder_features, *rest)
    return encoder, ResNetDecoder(output_shape, model.decoder_features, *rest)


# config.model.name -> (config, image shape, output shape, axis name) -> (encoder, decoder)
NETWORKS = {"conv": conv, "mlp": mlp, "conv64": conv64, "resnet": resnet}

PRIORS = ("standard_normal", "mixture", "vamp")


def build(config, image_shape, class_names, axis_name):
    """The VAE of a config, as the shared trainer takes it."""
    latent_dim, objective, prior = config.model.latent_dim, config.objective, config.prior
    likelihood = _check(config, class_names)
    num_classes = len(class_names) if config.model.class_conditional else 0
    network = choose(NETWORKS, config.model.name, "model.name")
    output_shape = (*image_shape[:2], likelihood.num_outputs(image_shape[2]))
    encoder, decoder = network(config, image_shape, output_shape, axis_name)
    networks = {"encoder": encoder, "decoder": decoder}
    kl_schedule = KL_SCHEDULES[objective.kl_schedule]
    samples, chunk = config.eval.importance_samples, config.eval.importance_chunk

    def init(key, *first):
        encoder_key, decoder_key = jax.random.split(key)
        y = jnp.zeros((1, num_classes)) if num_classes else None
        variables = {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, *image_shape)), y),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latent_dim)), y),
        }
        params = {name: v["params"] for name, v in variables.items()}
        stats = {name: {k: v[k] for k in v if k != "params"} for name, v in variables.items()}
        if prior.name == "mixture":
            k = prior.components
            means = jax.random.normal(jax.random.fold_in(key, 0), (k, latent_dim))
            zeros = jnp.zeros((k, latent_dim))
            params["prior"] = {"means": means, "log_variances": zeros, "logits": jnp.zeros(k)}
        if prior.name == "vamp":
            params["prior"] = {"pseudo_inputs": unit(first[0])}
        return params, {name: s for name, s in stats.items() if s}

    def apply(name, params, model_state, *inputs, train=False):
        """The output of a network, and the new model state."""
        variables = {"params": params[name], **model_state.get(name, {})}
        if not (train and name in model_state):
            return networks[name].apply(variables, *inputs), model_state
        mutable = list(model_state[name])
        out, new = networks[name].apply(variables, *inputs, train=True, mutable=mutable)
        return out, {**model_state, name: new}

    def label_of(batch):
        return jax.nn.one_hot(batch["label"], num_classes) if num_classes else None

    def prior_components(params, model_state):
        """Means, log-variances and logits of a prior that is a mixture."""
        if prior.name == "mixture":
            return tuple(params["prior"][k] for k in ("means", "log_variances", "logits"))
        pseudo = jnp.clip(params["prior"]["pseudo_inputs"], 0.0, 1.0)
        (mean, log_variance), _ = apply("encoder", params, model_state, pseudo, None)
        return mean, log_variance, jnp.zeros(len(mean))

    def prior_log_prob(params, model_state, z):
        if prior.name == "standard_normal":
            return log_normal(z, 0.0, jnp.zeros(()))
        return mixture_log_prob(z, *prior_components(params, model_state))

    def prior_sample(params, model_state, keys, temperature):
        if prior.name == "standard_normal":
            return temperature * rng.normal(keys, (latent_dim,))
        return mixture_sample(keys, *prior_components(params, model_state), temperature)

    def draw(posterior, noise):
        """z [B, k, D] of noise [B, k, D]."""
        mean, log_variance = posterior
        return mean[:, None] + jnp.exp(0.5 * log_variance)[:, None] * noise

    def log_likelihood(params, model_state, x, y, z, train=False):
        """log p(x | z) [B, k], and the new model state."""
        k = z.shape[1]
        repeat = lambda v: v if v is None or k == 1 else jnp.repeat(v, k, axis=0)
        outputs, model_state = apply(
            "decoder", params, model_state, z.reshape(-1, latent_dim), repeat(y), train=train
        )
        return likelihood.log_prob(repeat(x), outputs).reshape(-1, k), model_state

    def log_ratio(params, model_state, posterior, z):
        """log q(z | x) - log p(z), [B, k]."""
        log_q = log_normal(z, *(p[:, None] for p in posterior))
        return log_q - prior_log_prob(params, model_state, z)

    def elbo_terms(params, model_state, batch, keys, num_samples, train):
        """Each [B, ...], and the new model state; log p(x | z) is averaged over `num_samples`."""
        x, y = batch["image"], label_of(batch)
        posterior, model_state = apply("encoder", params, model_state, x, y, train=train)
        z = draw(posterior, rng.normal(keys, (num_samples, latent_dim)))
        log_px, model_state = log_likelihood(params, model_state, x, y, z, train)
        terms = {"recon_nats": -jnp.mean(log_px, axis=1)}
        if objective.name == "iwae" or prior.name != "standard_normal":
            ratio = log_ratio(params, model_state, posterior, z)
            terms["iwae_nats"] = -importance_bound(log_px - ratio)
        if prior.name == "standard_normal":
            terms["kl_per_latent"] = kl_standard_normal_per_latent(*posterior)
            terms["kl_nats"] = jnp.sum(terms["kl_per_latent"], axis=-1)
        else:
            terms["kl_nats"] = jnp.mean(ratio, axis=1)
        terms["neg_elbo_nats"] = terms["recon_nats"] + terms["kl_nats"]
        return terms, posterior, model_state

    def loss_fn(params, model_state, batch, rngs, train):
        terms, _, model_state = elbo_terms(
            params, model_state, batch, rngs("latent"), objective.num_samples, train
        )
        metrics = {name: jnp.mean(term) for name, term in terms.items() if term.ndim == 1}
        if objective.name == "iwae":
            return metrics["iwae_nats"], (metrics, model_state)
        kl = metrics["kl_nats"]
        if objective.free_bits:
            mean_kl = mean_over_devices(jnp.mean(terms["kl_per_latent"], axis=0), axis_name)
            kl = free_bits(mean_kl, objective.free_bits)
        weight = objective.beta * kl_schedule(rngs.step, objective.kl_steps)
        if objective.kl_schedule != "constant":
            metrics["kl_weight"] = weight
        return metrics["recon_nats"] + weight * kl, (metrics, model_state)

    def importance_nll(params, model_state, batch, posterior, keys):
        """-log 1/k sum_i p(x, z_i) / q(z_i | x), k = config.eval.importance_samples: [B]."""

        def add(total, first):
            numbers = first + jnp.arange(chunk)  # z_i of an image is the same whatever the chunks
            noise = jax.vmap(lambda i: rng.normal(_numbered(keys, i), (latent_dim,)), 0, 1)(numbers)
            z = draw(posterior, noise)
            log_px, _ = log_likelihood(params, model_state, batch["image"], label_of(batch), z)
            log_weights = log_px - log_ratio(params, model_state, posterior, z)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_weights, axis=1)), None

        none = 0 * posterior[0][:, 0] - jnp.inf
        total, _ = jax.lax.scan(add, none, jnp.arange(0, samples, chunk))
        return math.log(samples) - total

    def eval_fn(params, model_state, batch, rngs):
        terms, posterior, _ = elbo_terms(
            params, model_state, batch, rngs("latent"), num_samples=1, train=False
        )
        shown = decode(params, model_state, posterior[0], label_of(batch))
        values = {
            **{k: v for k, v in terms.items() if k != "iwae_nats"},
            "recon_mse": jnp.mean((shown - batch["image"]) ** 2, axis=(1, 2, 3)),
            "posterior_mean": posterior[0],
            "label": batch["label"],
        }
        if samples:
            values[f"nll_nats_iw{samples}"] = importance_nll(
                params, model_state, batch, posterior, rngs("importance")
            )
        return values

    def summarize(values):
        arrays = ("kl_per_latent", "posterior_mean", "label")
        found = {k: np.mean(v, dtype=np.float64) for k, v in values.items() if k not in arrays}
        variances = np.var(values["posterior_mean"], axis=0, dtype=np.float64)
        found["active_units"] = np.sum(variances > ACTIVE_VARIANCE)
        if "kl_per_latent" in values and latent_dim <= MAX_REPORTED_LATENTS:
            means = np.mean(values["kl_per_latent"], axis=0, dtype=np.float64)
            found |= {f"kl_nats_latent_{d:02d}": kl for d, kl in enumerate(means)}
        return found | bits_per_dim(found, likelihood, config.data.pixels, math.prod(image_shape))

    def eval_figures(values):
        pictures = {"latents": latents.scatter(values, class_names)}
        if "kl_per_latent" in values:
            kl = np.mean(values["kl_per_latent"], axis=0)
            pictures["kl_per_latent"] = plots.bars(kl, "latent", "KL, nats")
        return pictures

    def decode(params, model_state, z, y):
        """The mean images [B, H, W, C] in [0, 1] of z [B, D]."""
        return likelihood.mean(apply("decoder", params, model_state, z, y)[0])

    def sample(params, model_state, keys, labels=None):
        z = prior_sample(params, model_state, keys, config.sample.temperature)
        y = None if labels is None else jax.nn.one_hot(labels, num_classes)
        return decode(params, model_state, z, y)

    encode_jit = jax.jit(lambda p, s, x, y: apply("encoder", p, s, x, y)[0][0])
    prior_sample_jit = jax.jit(prior_sample)
    decode_jit = jax.jit(decode)

    def figures(params, model_state, batch):
        x, y = batch["image"], label_of(batch)
        means = encode_jit(params, model_state, x, y)

        def pictures_of(z, y=None):
            """uint8 images of z [N, D], for which y are the classes, else those of the first."""
            if num_classes and y is None:
                y = jax.nn.one_hot(np.full(len(z), batch["label"][0]), num_classes)
            return plots.to_uint8(decode_jit(params, model_state, jnp.asarray(z, jnp.float32), y))

        count = NUM_RECONSTRUCTIONS
        pairs = np.concatenate([plots.to_uint8(x), pictures_of(means, y)])
        num = len(x)
        shown = np.concatenate([pairs[:count], pairs[num : num + count]])
        pictures = {"reconstructions": plots.grid(shown, min(count, num))}
        prior_z = lambda keys, temperature: np.asarray(
            prior_sample_jit(params, model_state, keys, temperature)
        )
        return pictures | latents.pictures(pictures_of, np.asarray(means), prior_z, num_classes)

    return Experiment(
        init=init,
        init_examples=prior.components if prior.name == "vamp" else 0,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        eval_figures=eval_figures,
        sample=sample,
        sample_classes=bool(num_classes),
        figures=figures,
    )


def _numbered(keys, number):
    """Other keys [B] for each `number`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _check(config, class_names):
    """The `Likelihood` of a config; a UserError for what does not go together."""
    model, objective, prior = config.model, config.objective, config.prior
    require(model.latent_dim >= 1, "model.latent_dim", model.latent_dim, "at least 1")
    for key in ("encoder_features", "encoder_hidden", "decoder_features", "blocks"):
        sizes = model[key]
        whole = all(n >= 1 for n in (sizes if isinstance(sizes, tuple) else (sizes,)))
        require(whole, f"model.{key}", sizes, "at least 1")
    require(
        not model.class_conditional or len(class_names) > 1,
        "model.class_conditional",
        True,
        f"False: config.data.name='{config.data.name}' has no classes",
    )

    choose(PRIORS, prior.name, "prior.name")
    require(prior.components >= 1, "prior.components", prior.components, "at least 1")
    vamp = prior.name == "vamp" and model.class_conditional
    require(not vamp, "prior.name", "vamp", "another with config.model.class_conditional=True")

    choose(("elbo", "iwae"), objective.name, "objective.name")
    check_kl(objective)
    nats = objective.free_bits
    require(0 <= nats < math.inf, "objective.free_bits", nats, "at least 0 and finite")
    closed = nats == 0 or prior.name == "standard_normal"
    require(closed, "objective.free_bits", nats, f"0 with config.prior.name={prior.name}")
    if objective.name == "iwae":  # its bound has no KL term that could be weighted
        for key, neutral in {"beta": 1.0, "kl_schedule": "constant", "free_bits": 0.0}.items():
            value = objective[key]
            require(value == neutral, f"objective.{key}", value, f"{neutral} with iwae")
    k = objective.num_samples
    require(k >= 1, "objective.num_samples", k, "at least 1")

    likelihood = check_likelihood(config)
    samples, chunk = config.eval.importance_samples, config.eval.importance_chunk
    require(samples >= 0, "eval.importance_samples", samples, "at least 0")
    require(
        chunk >= 1 and samples % chunk == 0,
        "eval.importance_chunk",
        chunk,
        f"a divisor of eval.importance_samples={samples}",
    )
    temperature = config.sample.temperature
    require(temperature >= 0, "sample.temperature", temperature, "at least 0")
    return likelihood


def check_kl(objective):
    """Checks `beta`, `kl_schedule` and `kl_steps`."""
    beta, name, steps = objective.beta, objective.kl_schedule, objective.kl_steps
    require(0 <= beta < math.inf, "objective.beta", beta, "at least 0 and finite")
    choose(KL_SCHEDULES, name, "objective.kl_schedule")
    fits = name == "constant" or steps >= 1
    text = f"at least 1 with config.objective.kl_schedule={name}"
    require(fits, "objective.kl_steps", steps, text)


def check_likelihood(config):
    """The `Likelihood` of a config, which has to be one of the pixels that it is given."""
    name, pixels = config.objective.likelihood, config.data.pixels
    likelihood = choose(LIKELIHOODS, name, "objective.likelihood")
    require(pixels != "symmetric", "data.pixels", pixels, "a kind of pixels in [0, 1]")
    fits = likelihood.over != "levels" or pixels == "unit"
    require(fits, "data.pixels", pixels, f"unit with config.objective.likelihood={name}")
    return likelihood


def bits_per_dim(found, likelihood, pixels, dims):
    """{"bits_per_dim_...": of every bound "neg_elbo_nats", "nll_nats_..."}, if there are such.

    Of a mass on 8-bit levels, or of a density of pixels with uniform noise; binary pixels are in
    nats, and a density of 8-bit pixels without noise has no bits.
    """
    if likelihood.over == "levels":
        bits = lambda nats: bits_per_dim_of_mass(nats, dims)
    elif likelihood.over == "continuous" and pixels == "dequantized":
        bits = lambda nats: bits_per_dim_of_density(nats, dims, levels=256, data_range=(0, 1))
    else:
        return {}
    names = {"neg_elbo_nats": "elbo"}
    names |= {k: k.removeprefix("nll_nats_") for k in found if k.startswith("nll_nats_")}
    return {f"bits_per_dim_{name}": bits(found[k]) for k, name in names.items()}
