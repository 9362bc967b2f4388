"""VQ-VAEs (van den Oord et al. 2017), see `genjax.models.vqvae`.

  loss = |x - D(e)|^2 / Var(x) + beta |E(x) - sg(e)|^2,   e: the code nearest to E(x),

means over all numbers; Var(x) is the configured variance of the pixels, so that the two terms
are of one size. There is nothing to sample until an autoregressive model has learned the codes:
`python -m experiments.codes` writes them, and the decoder that makes images of that model's.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.config import base_config, require
from experiments.run import Experiment
from genjax import plots, rng
from genjax.models import vqvae
from genjax.train.parallel import mean_over_devices

NUM_RECONSTRUCTIONS = 10


def vqvae_config():
    """`base_config` and the fields of this family."""
    config = base_config()
    config.experiment = "vqvae"
    config.model = {
        "num_codes": 512,
        "code_dim": 64,
        "width": 128,
        "halvings": 2,  # of the sides, from pixels to codes
        "blocks": 2,
        "codebook_decay": 0.99,
        "restart_below": 1.0,  # vectors of a batch that choose a code, on average; 0: no restart
    }
    config.objective = {"commitment": 0.25, "pixel_variance": 0.06}  # CIFAR-10's, in [0, 1]
    return config


def build(config, image_shape, class_names, axis_name):
    """The VQ-VAE of a config, as the shared trainer takes it."""
    del class_names
    _check(config, image_shape)
    model, objective = config.model, config.objective
    sizes = (model.width, model.halvings, model.blocks, config.compute_dtype)
    encoder = vqvae.VqEncoder(model.code_dim, *sizes)
    decoder = vqvae.VqDecoder(image_shape[2], *sizes)
    height, width = (side // 2**model.halvings for side in image_shape[:2])

    def init(key):
        keys = jax.random.split(key, 3)
        params = {
            "encoder": encoder.init(keys[0], jnp.zeros((1, *image_shape)))["params"],
            "decoder": decoder.init(keys[1], jnp.zeros((1, height, width, model.code_dim)))[
                "params"
            ],
        }
        return params, {"codebook": vqvae.init_codebook(keys[2], model.num_codes, model.code_dim)}

    def encode(params, model_state, x):
        """z [B, h, w, D], codes int32 [B, h, w]."""
        z = encoder.apply({"params": params["encoder"]}, x)
        return z, vqvae.nearest_codes(z, model_state["codebook"]["codes"])

    def decode(params, quantized):
        return decoder.apply({"params": params["decoder"]}, quantized)

    def terms(params, model_state, x):
        """Each [B], the vectors and their codes."""
        z, index = encode(params, model_state, x)
        quantized = model_state["codebook"]["codes"][index]
        shown = decode(params, vqvae.straight_through(z, quantized))
        distance = (z - jax.lax.stop_gradient(quantized)) ** 2
        values = {
            "recon_mse": jnp.mean((shown - x) ** 2, axis=(1, 2, 3)),
            "commitment": jnp.mean(distance, axis=(1, 2, 3)),
        }
        return values, z, index

    def loss_fn(params, model_state, batch, rngs, train):
        values, z, index = terms(params, model_state, batch["image"])
        metrics = {name: jnp.mean(v) for name, v in values.items()}
        frequencies = jnp.mean(jax.nn.one_hot(index.reshape(-1), model.num_codes), axis=0)
        metrics["perplexity"] = vqvae.perplexity(mean_over_devices(frequencies, axis_name))
        loss = metrics["recon_mse"] / objective.pixel_variance
        loss += objective.commitment * metrics["commitment"]
        if train:
            codebook = vqvae.update_codebook(
                model_state["codebook"],
                z.reshape(-1, model.code_dim),
                index.reshape(-1),
                model.codebook_decay,
                model.restart_below,
                rng.stream(rngs.root, "restart", rngs.step),
                axis_name,
            )
            model_state = {"codebook": codebook}
        return loss, (metrics, model_state)

    def eval_fn(params, model_state, batch, rngs):
        values, _, index = terms(params, model_state, batch["image"])
        return {**values, "codes": index}

    def summarize(values):
        found = {k: np.mean(v, dtype=np.float64) for k, v in values.items() if k != "codes"}
        counts = np.bincount(values["codes"].reshape(-1), minlength=model.num_codes)
        found["perplexity"] = vqvae.perplexity(counts / counts.sum())
        found["codes_used"] = np.sum(counts > 0)
        return found

    def eval_figures(values):
        counts = np.bincount(values["codes"].reshape(-1), minlength=model.num_codes)
        frequencies = np.sort(counts / counts.sum())[::-1]
        return {"codes": plots.bars(frequencies, "code, from the commonest", "frequency")}

    @jax.jit
    def reconstruct(params, model_state, x):
        _, index = encode(params, model_state, x)
        return jnp.clip(decode(params, model_state["codebook"]["codes"][index]), 0, 1)

    def figures(params, model_state, batch):
        x = batch["image"][:NUM_RECONSTRUCTIONS]
        pairs = jnp.concatenate([x, reconstruct(params, model_state, x)])
        return {"reconstructions": plots.grid(plots.to_uint8(pairs), len(x))}

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        eval_figures=eval_figures,
        figures=figures,
    )


def decoder_arrays(config, image_shape, params):
    """The decoder of a trained VQ-VAE as the arrays that `load_decoder` reads."""
    fields = {k: config.model[k] for k in ("width", "halvings", "blocks")}
    weights = flatten_dict(jax.tree.map(np.asarray, params["decoder"]), sep="/")
    arrays = {f"decoder/{name}": weight for name, weight in weights.items()}
    return arrays | {"decoder_fields": json.dumps({"channels": image_shape[2], **fields})}


def load_decoder(file):
    """What makes images of codes, of an open file that `experiments.codes` wrote.

    Returns:
      codes int32 [B, h, w] -> images [B, H, W, C] in [0, 1]; None if the file has no decoder.
    """
    if "decoder_fields" not in file:
        return None
    decoder = vqvae.VqDecoder(**json.loads(str(file["decoder_fields"])))
    named = {k.removeprefix("decoder/"): file[k] for k in file if k.startswith("decoder/")}
    params, codebook = unflatten_dict(named, sep="/"), jnp.asarray(file["codebook"])

    def decode(index):
        return jnp.clip(decoder.apply({"params": params}, codebook[index]), 0, 1)

    return decode


def _check(config, image_shape):
    model, objective = config.model, config.objective
    for key in ("num_codes", "code_dim", "width", "blocks"):
        require(model[key] >= 1, f"model.{key}", model[key], "at least 1")
    require(model.halvings >= 0, "model.halvings", model.halvings, "at least 0")
    factor = 2**model.halvings
    fits = all(side % factor == 0 for side in image_shape[:2])
    text = f"so that 2^halvings divides the image's sides {tuple(image_shape[:2])}"
    require(fits, "model.halvings", model.halvings, text)
    decay, below = model.codebook_decay, model.restart_below
    require(0 <= decay < 1, "model.codebook_decay", decay, "in [0, 1)")
    require(below >= 0, "model.restart_below", below, "at least 0")
    require(objective.commitment >= 0, "objective.commitment", objective.commitment, "at least 0")
    variance = objective.pixel_variance
    require(variance > 0, "objective.pixel_variance", variance, "more than 0")
    pixels = config.data.pixels
    require(pixels in ("unit", "dequantized"), "data.pixels", pixels, "unit or dequantized")
