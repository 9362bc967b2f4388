"""VQ-VAEs (van den Oord et al. 2017), see `genjax.models.vqvae`.

  loss = |x - D(e)|^2 / Var(x) + beta |E(x) - sg(e)|^2,   e: the code nearest to E(x),

means over all numbers; Var(x) is the configured variance of the pixels, so that the two terms
are of one size. There is nothing to sample until an autoregressive model has learned the codes:
--mode=codes writes them to a file, with the decoder that turns samples of that model into images.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.vae.codes import write_codes
from genjax import plots, rng
from genjax.data.transforms import clip_to_unit
from genjax.devices import mean_over_devices
from genjax.models import vqvae
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import make_config
from genjax.runner.family import Family
from genjax.runner.fields import field, require, unused
from genjax.typing import Array, Float, Int, ModelState, Params, Shape

NUM_RECONSTRUCTIONS = 10

FIELDS = {
    "sample": unused(SHARED["sample"]),  # there are no samples without a prior of the codes
    "model": {
        "num_codes": field(512, "vectors in the codebook", at_least=1),
        "code_dim": field(64, "numbers in each of them", at_least=1),
        "width": field(128, "channels", at_least=1),
        "halvings": field(2, "of the image's sides, from pixels to codes", at_least=0),
        "blocks": field(2, "residual blocks", at_least=1),
        "codebook_decay": field(0.99, "of the codebook's averages", at_least=0, below=1),
        "restart_below": field(
            1.0,
            "replace a code that fewer vectors of a batch choose, on average; 0: never",
            at_least=0,
        ),
    },
    "objective": {
        "commitment": field(0.25, "weight of |E(x) - sg(e)|^2", at_least=0),
        "pixel_variance": field(0.06, "of pixels in [0, 1]; the default is CIFAR-10's", above=0),
    },
}

MODES = {"codes": write_codes}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("vqvae", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    return {"model.num_codes": 16, "model.code_dim": 4, "model.width": 8, "model.blocks": 1}


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "VqVae":
    """Builds the VQ-VAE of a config."""
    del class_names  # it is unconditional
    _check(config, image_shape)
    model, objective = config.model, config.objective
    sizes = (model.width, model.halvings, model.blocks, config.compute_dtype)
    return VqVae(
        encoder=vqvae.VqEncoder(model.code_dim, *sizes),
        decoder=vqvae.VqDecoder(image_shape[2], *sizes),
        image_shape=image_shape,
        num_codes=model.num_codes,
        codebook_decay=model.codebook_decay,
        restart_below=model.restart_below,
        commitment=objective.commitment,
        pixel_variance=objective.pixel_variance,
    )


def _check(config: ConfigDict, image_shape: Shape) -> None:
    """Raises a UserError for fields that do not go together."""
    halvings, pixels = config.model.halvings, config.data.pixels
    fits = all(side % 2**halvings == 0 for side in image_shape[:2])
    text = f"so that 2^halvings divides the image's sides {tuple(image_shape[:2])}"
    require(fits, "model.halvings", halvings, text)
    require(pixels in ("unit", "dequantized"), "data.pixels", pixels, "unit or dequantized")


@dataclasses.dataclass(frozen=True, eq=False)
class VqVae(Family):
    """A VQ-VAE; its codebook is model state, learned as a moving average.

    Attributes:
      encoder: x [B, H, W, C] -> vectors [B, h, w, D].
      decoder: vectors -> images [B, H, W, C].
      image_shape: (H, W, C).
      num_codes: K, vectors in the codebook.
      codebook_decay, restart_below: see `genjax.models.vqvae.update_codebook`.
      commitment: weight of |E(x) - sg(e)|^2.
      pixel_variance: of the data, by which the reconstruction error is divided.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_shape: Shape
    num_codes: int = 512
    codebook_decay: float = 0.99
    restart_below: float = 1.0
    commitment: float = 0.25
    pixel_variance: float = 0.06

    # ---- Networks ----

    def init(self, key, images=None):
        keys = jax.random.split(key, 3)
        x = jnp.zeros((1, *self.image_shape))
        z, variables = self.encoder.init_with_output(keys[0], x)
        params = {
            "encoder": variables["params"],
            "decoder": self.decoder.init(keys[1], jnp.zeros(z.shape))["params"],
        }
        return params, {"codebook": vqvae.init_codebook(keys[2], self.num_codes, z.shape[-1])}

    def encode(
        self, params: Params, model_state: ModelState, x: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b hz wz d"], Int[Array, "b hz wz"]]:
        """Returns the encoder's vectors and the index of the code nearest to each."""
        z = self.encoder.apply({"params": params["encoder"]}, x)
        return z, vqvae.nearest_codes(z, model_state["codebook"]["codes"])

    def decode(self, params: Params, z: Float[Array, "b hz wz d"]) -> Float[Array, "b h w c"]:
        """Returns the decoder's images of vectors."""
        return self.decoder.apply({"params": params["decoder"]}, z)

    # ---- Loss ----

    def terms(
        self, params: Params, model_state: ModelState, x: Float[Array, "b h w c"]
    ) -> tuple[dict[str, Array], Float[Array, "b hz wz d"], Int[Array, "b hz wz"]]:
        """Returns ({"recon_mse", "commitment": [B]}, the encoder's vectors, their codes)."""
        z, index = self.encode(params, model_state, x)
        quantized = model_state["codebook"]["codes"][index]
        shown = self.decode(params, vqvae.straight_through(z, quantized))
        distance = (z - jax.lax.stop_gradient(quantized)) ** 2
        values = {
            "recon_mse": jnp.mean((shown - x) ** 2, axis=(1, 2, 3)),
            "commitment": jnp.mean(distance, axis=(1, 2, 3)),
        }
        return values, z, index

    def loss(self, params, model_state, batch, rngs, train=True):
        values, z, index = self.terms(params, model_state, batch["image"])
        metrics = {name: jnp.mean(v) for name, v in values.items()}
        frequencies = jnp.mean(jax.nn.one_hot(index.reshape(-1), self.num_codes), axis=0)
        metrics["perplexity"] = vqvae.perplexity(mean_over_devices(frequencies))
        loss = metrics["recon_mse"] / self.pixel_variance
        loss += self.commitment * metrics["commitment"]
        if train:
            codebook = vqvae.update_codebook(
                model_state["codebook"],
                z.reshape(-1, z.shape[-1]),
                index.reshape(-1),
                self.codebook_decay,
                self.restart_below,
                rng.stream(rngs.root, "restart", rngs.step),
            )
            model_state = {"codebook": codebook}
        return loss, (metrics, model_state)

    # ---- Evaluation ----

    def evaluate(self, params, model_state, batch, rngs):
        values, _, index = self.terms(params, model_state, batch["image"])
        return {**values, "codes": index}

    def code_counts(self, values: dict[str, np.ndarray]) -> Int[np.ndarray, " k"]:
        """Counts how often each code is chosen in values of `evaluate`."""
        return np.bincount(values["codes"].reshape(-1), minlength=self.num_codes)

    def summarize(self, values):
        numbers = {k: np.mean(v, dtype=np.float64) for k, v in values.items() if k != "codes"}
        counts = self.code_counts(values)
        numbers["perplexity"] = vqvae.perplexity(jnp.asarray(counts / counts.sum()))
        numbers["codes_used"] = np.sum(counts > 0)
        return numbers

    def evaluation_figures(self, values):
        counts = self.code_counts(values)
        frequencies = np.sort(counts / counts.sum())[::-1]
        return {"codes": plots.bars(frequencies, "code, from the commonest", "frequency")}

    # ---- Drawing ----

    def reconstruct(
        self, params: Params, model_state: ModelState, x: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """Returns the images of the codes of x, in [0, 1]."""
        z, index = self.encode(params, model_state, x)
        # Some code is the nearest to a NaN, too.
        codes = jnp.where(jnp.isfinite(z), model_state["codebook"]["codes"][index], jnp.nan)
        return clip_to_unit(self.decode(params, codes))

    _reconstruct_jit = functools.cached_property(lambda self: jax.jit(self.reconstruct))

    def figures(self, params, model_state, batch):
        x = batch["image"][:NUM_RECONSTRUCTIONS]
        pairs = jnp.concatenate([x, self._reconstruct_jit(params, model_state, x)])
        return {"reconstructions": plots.grid(plots.to_uint8(pairs), len(x))}
