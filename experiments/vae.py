"""Variational autoencoders (Kingma & Welling 2014; Rezende et al. 2014).

  -ELBO(x) = -E_{q(z|x)} log p(x|z) + KL(q(z|x) || p(z)),   z = mu + sigma * eps,

the reconstruction summed over pixels, the KL summed over latent dimensions, both averaged over the
batch.
"""

import math

import jax
import jax.numpy as jnp

from experiments.config import choose, require
from experiments.run import Experiment
from genjax import plots, rng
from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.objectives.divergences import kl_standard_normal
from genjax.objectives.likelihoods import LIKELIHOODS

MANIFOLD_SIDE = 30
NUM_RECONSTRUCTIONS = 10


def conv_vae(config, image_shape, output_channels):
    """The tutorial's convolutional pair of networks."""
    sizes = {"latent_dim": config.model.latent_dim, "dtype": config.compute_dtype}
    encoder = ConvEncoder(
        features=config.model.encoder_features, hidden=config.model.encoder_hidden, **sizes
    )
    decoder = ConvDecoder(
        image_shape=(*image_shape[:2], output_channels),
        features=config.model.decoder_features,
        dtype=config.compute_dtype,
    )
    return encoder, decoder


# config.model.name -> (config, image shape, output channels) -> (encoder, decoder)
NETWORKS = {"conv": conv_vae}


def build(config, image_shape, class_names, axis_name):
    """The VAE of a config, as the shared trainer takes it."""
    del class_names, axis_name  # unconditional, without batch statistics
    latent_dim = config.model.latent_dim
    require(latent_dim >= 1, "model.latent_dim", latent_dim, "at least 1")
    beta = config.objective.beta
    require(0 <= beta < math.inf, "objective.beta", beta, "at least 0 and finite")
    likelihood = choose(LIKELIHOODS, config.objective.likelihood, "objective.likelihood")
    pixels = config.data.pixels
    require(pixels != "symmetric", "data.pixels", pixels, "a kind of pixels in [0, 1]")
    for key in ("encoder_features", "encoder_hidden", "decoder_features"):
        sizes = config.model[key]
        whole = all(n >= 1 for n in (sizes if isinstance(sizes, tuple) else (sizes,)))
        require(whole, f"model.{key}", sizes, "at least 1")
    network = choose(NETWORKS, config.model.name, "model.name")
    encoder, decoder = network(config, image_shape, image_shape[2] * likelihood.outputs_per_channel)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        params = {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, *image_shape)))["params"],
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latent_dim)))["params"],
        }
        return params, {}

    def encode(params, x):
        return encoder.apply({"params": params["encoder"]}, x)

    def decode(params, z):
        return decoder.apply({"params": params["decoder"]}, z)

    def elbo_terms(params, x, keys):
        mean, log_variance = encode(params, x)
        z = mean + jnp.exp(0.5 * log_variance) * rng.normal(keys, (latent_dim,))
        recon = -likelihood.log_prob(x, decode(params, z))
        kl = kl_standard_normal(mean, log_variance)
        return {"neg_elbo_nats": recon + kl, "recon_nats": recon, "kl_nats": kl}

    def loss_fn(params, model_state, batch, rngs, train):
        terms = elbo_terms(params, batch["image"], rngs("latent"))
        metrics = {name: jnp.mean(term) for name, term in terms.items()}
        loss = metrics["recon_nats"] + config.objective.beta * metrics["kl_nats"]
        return loss, (metrics, model_state)

    def eval_fn(params, model_state, batch, rngs):
        return elbo_terms(params, batch["image"], rngs("latent"))

    def sample(params, model_state, keys):
        return likelihood.mean(decode(params, rng.normal(keys, (latent_dim,))))

    @jax.jit
    def reconstruct(params, x):
        return likelihood.mean(decode(params, encode(params, x)[0]))

    @jax.jit
    def manifold(params):
        """The decoded plane: equal steps of the prior's quantiles along each axis."""
        quantiles = (jnp.arange(MANIFOLD_SIDE) + 0.5) / MANIFOLD_SIDE
        u = jax.scipy.stats.norm.ppf(quantiles)
        z = jnp.stack(jnp.meshgrid(u, -u), axis=-1).reshape(-1, 2)
        return likelihood.mean(decode(params, z))

    def figures(params, model_state, batch):
        x = batch["image"][:NUM_RECONSTRUCTIONS]
        pairs = jnp.concatenate([x, reconstruct(params, x)])
        pictures = {"reconstructions": plots.grid(plots.to_uint8(pairs), len(x))}
        if latent_dim == 2:
            images = plots.to_uint8(manifold(params))
            pictures["manifold"] = plots.grid(images, MANIFOLD_SIDE, padding=1)
        return pictures

    return Experiment(init=init, loss_fn=loss_fn, eval_fn=eval_fn, sample=sample, figures=figures)
