"""Normalizing flows (Dinh et al. 2017 and their successors), see `genjax.models.flows`.

  log p(y) = log N(z; 0, 1) + log|det dz/dy|,   z = f(y),

exact for pixels y with noise; what that says about pixels is in `noise`. The loss is -log p in
nats, divided by H W C.
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

from experiments.normalizing_flow.noise import NOISES, Dequantization, GaussianNoise
from experiments.normalizing_flow.pictures import NUM_SHOWN, draw_pictures, scaled
from genjax import rng
from genjax.metrics.likelihood import bits_per_dim_of_mass
from genjax.models.flows import log_standard_normal
from genjax.models.glow import Glow
from genjax.models.maf import KINDS, AutoregressiveFlow
from genjax.models.realnvp import RealNvp, VariationalNoise
from genjax.models.tarflow import TarFlow
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Family
from genjax.runner.fields import Choice, field, is_set, one_of, require
from genjax.typing import Array, Float, Int, Key, Params, Shape

# Training images that data-dependent initialisation looks at.
NUM_INIT_EXAMPLES = 256

CLASS_CONDITIONAL = field(False, "give the network the class")
REMAT = field(False, "compute layers again for gradients, to save memory")

# config.model: the fields of each network of `genjax.models`.
NETWORKS = Choice(
    {
        "realnvp": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(64, "channels inside of couplings", at_least=1),
            "blocks": field(8, "residual blocks of a coupling", at_least=0),
            "scales": field(2, "each of half of the resolution", at_least=1),
            "remat": REMAT,
        },
        "glow": {
            "class_conditional": CLASS_CONDITIONAL,
            "features": field(512, "channels inside of couplings", at_least=1),
            "depth": field(32, "steps of a level", at_least=1),
            "levels": field(3, "each of half of the resolution", at_least=1),
            "remat": REMAT,
        },
        "tarflow": {
            "class_conditional": CLASS_CONDITIONAL,
            "patch_size": field(4, "side of a patch", at_least=1),
            "width": field(512, "of a token", at_least=1),
            "blocks": field(4, "autoregressive flows, in alternating order", at_least=1),
            "layers": field(8, "of the transformer of a block", at_least=1),
            "head_dim": field(64, "of each head", at_least=1),
            "remat": REMAT,
        },
        "maf": {
            "class_conditional": CLASS_CONDITIONAL,
            "kind": field("maf", "which way is one pass", one_of=KINDS),
            "hidden": field((512, 512), "widths of a block's layers", at_least=1, nonempty=True),
            "blocks": field(5, "in alternating order", at_least=1),
        },
    }
)

_NETWORK_CLASSES = {
    "realnvp": RealNvp,
    "glow": Glow,
    "tarflow": TarFlow,
    "maf": AutoregressiveFlow,
}

_DEQUANTIZED = one_of("objective.noise", "uniform", "variational")
_GAUSSIAN = one_of("objective.noise", "gaussian")
_VARIATIONAL = one_of("objective.noise", "variational")
_TARFLOW = one_of("model.name", "tarflow")

FIELDS = {
    "model": NETWORKS,
    "objective": {
        "noise": field(
            "uniform", "uniform and variational bound log P of pixels; gaussian", one_of=NOISES
        ),
        "logit": field(
            0.0, "alpha of the logit transform; 0: none", at_least=0, below=0.5,
            only_with=_DEQUANTIZED,
        ),
        "noise_std": field(0.05, "for pixels in [-1, 1]", above=0, only_with=_GAUSSIAN),
        "noise_features": field(32, "channels of q(u | x)", at_least=1, only_with=_VARIATIONAL),
        "label_dropout": field(
            0.0,
            "share of training examples without class, for guidance",
            at_least=0,
            below=1,
            only_with=(_TARFLOW, is_set("model.class_conditional")),
        ),
    },
    "eval": {"invert": field(True, "whether evaluation reports the error of inverses")},
    "sample": {
        "temperature": field(1.0, "multiplies the latents", at_least=0),
        "guidance": field(0.0, at_least=0, only_with=is_set("objective.label_dropout")),
        "denoise": field(True, "one step along the score", only_with=_GAUSSIAN),
    },
}  # fmt: skip

_SMOKE = {
    "realnvp": {"features": 4, "blocks": 1},
    "glow": {"features": 4, "depth": 2},
    "tarflow": {"width": 8, "blocks": 2, "layers": 1, "head_dim": 4},
    "maf": {"hidden": (16,), "blocks": 2},
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("normalizing_flow", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    network = {f"model.{key}": value for key, value in _SMOKE[config.model.name].items()}
    return {
        "compute_dtype": "float32",
        "optim.warmup_steps": 0,
        "nonfinite.policy": "raise",
        "objective.noise_features": 4,
        **network,
    }


def build(
    config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]
) -> "NormalizingFlow":
    """Builds the flow of a config."""
    _check(config, class_names)
    fields, objective = config.model.to_dict(), config.objective
    name, class_conditional = fields.pop("name"), fields.pop("class_conditional")
    num_classes = len(class_names) if class_conditional else 0
    if objective.noise == "gaussian":
        noise = GaussianNoise(objective.noise_std)
    else:
        learnt = objective.noise == "variational"
        q = VariationalNoise(objective.noise_features, dtype=config.compute_dtype)
        noise = Dequantization(q if learnt else None, objective.logit)
    return NormalizingFlow(
        network=_NETWORK_CLASSES[name](
            num_classes=num_classes, dtype=config.compute_dtype, **fields
        ),
        image_shape=tuple(image_shape),
        noise=noise,
        num_classes=num_classes,
        label_dropout=objective.label_dropout,
        invert=config.eval.invert,
        temperature=config.sample.temperature,
        guidance=config.sample.guidance,
        denoise=config.sample.denoise,
    )


def _check(config: ConfigDict, class_names: tuple[str, ...]) -> None:
    """Raises a UserError for fields that do not go together."""
    model, pixels = config.model, config.data.pixels
    require(pixels == "unit", "data.pixels", pixels, "unit: noise is config.objective.noise")
    require(
        not model.class_conditional or len(class_names) > 1,
        "model.class_conditional",
        True,
        f"False: config.data.name='{config.data.name}' has no classes",
    )
    if model.name == "tarflow":
        fits = model.width % model.head_dim == 0
        require(fits, "model.width", model.width, f"a multiple of model.head_dim={model.head_dim}")
    halvings = {"realnvp": model.get("scales", 1) - 1, "glow": model.get("levels", 0)}
    side = 2 ** halvings.get(model.name, 0)
    shape = tuple(config.data.image_shape)
    fits = all(length % side == 0 for length in shape[:2])
    what = f"of sides that are multiples of {side} with config.model.name={model.name}"
    require(fits, "data.image_shape", shape, what)


@dataclasses.dataclass(frozen=True, eq=False)
class NormalizingFlow(Family):
    """A normalizing flow of images with pixels in [0, 1].

    Attributes:
      network: as `genjax.models.flows` says.
      image_shape: (H, W, C).
      noise: what is added to pixels.
      num_classes: classes that the network gets; 0 for none.
      label_dropout: share of training examples that the network gets no class of.
      invert: whether evaluation reports the error of inverses.
      temperature: multiplies the latents, when sampling.
      guidance: of classes, when sampling; of TarFlow.
      denoise: whether samples of noisy images are denoised by one step along the score.
    """

    network: nn.Module
    image_shape: Shape
    noise: Dequantization | GaussianNoise = Dequantization()
    num_classes: int = 0
    label_dropout: float = 0.0
    invert: bool = True
    temperature: float = 1.0
    guidance: float = 0.0
    denoise: bool = True

    @property
    def num_init_examples(self) -> int:
        return 0 if isinstance(self.network, TarFlow) else NUM_INIT_EXAMPLES

    @property
    def sample_takes_labels(self) -> bool:
        return self.num_classes > 0

    @property
    def num_dims(self) -> int:
        """Numbers in an image."""
        return math.prod(self.image_shape)

    def init(self, key, images=None):
        flow_key, noise_key, q_key = jax.random.split(key, 3)
        if images is None:
            images = np.zeros((1, *self.image_shape), np.uint8)
        # As constants the compiler would evaluate the whole network on them, slowly.
        x = jax.lax.optimization_barrier(jnp.asarray(images)).astype(jnp.float32) / 255
        keys = jax.random.split(noise_key, len(x))
        q = self.noise.init(q_key, self.image_shape)
        label = jnp.zeros(len(x), jnp.int32) if self.num_classes else None
        y, _ = self.noise.add(q, x, keys)
        params = {"flow": self.network.init(flow_key, y, label)["params"]}
        return (params | {"noise": q} if q else params), {}

    # ---- Likelihood ----

    def encode(
        self, params: Params, y: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[tuple[Float[Array, "b ..."], ...], Float[Array, " b"]]:
        """Returns the latents of noisy images y, a shape for each scale, and log p(y) in nats."""
        latents, log_det = self.network.apply({"params": params["flow"]}, y, label)
        return latents, sum(map(log_standard_normal, latents)) + log_det

    def decode(
        self,
        params: Params,
        latents: tuple[Float[Array, "b ..."], ...],
        label: Int[Array, " b"] | None = None,
        guidance: float = 0.0,
    ) -> Float[Array, "b h w c"]:
        """Returns the noisy images of latents."""
        options = {"guidance": guidance} if guidance else {}
        variables = {"params": params["flow"]}
        return self.network.apply(variables, latents, label, method="inverse", **options)

    def add_noise(
        self, params: Params, x: Float[Array, "b h w c"], keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Returns noisy images of images in [0, 1], and nats: see `Dequantization.add`."""
        return self.noise.add(params.get("noise", {}), x, keys)

    def log_prob(
        self,
        params: Params,
        x: Float[Array, "b h w c"],
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None = None,
    ) -> Float[Array, " b"]:
        """Returns a bound of log P(x) of pixels, or log p of noisy ones, in nats; one draw."""
        y, nats = self.add_noise(params, x, keys)
        return self.encode(params, y, label)[1] - nats

    def _label(self, batch: Batch) -> Array | None:
        return batch["label"] if self.num_classes else None

    def _names(self) -> tuple[str, str]:
        """Names of the nats of an image and of the bits of a number."""
        if self.noise.bounds_pixels:
            return "nll_nats", "bpd"
        return "noisy_nll_nats", "noisy_bits_per_dim"

    def loss(self, params, model_state, batch, rngs, train=True):
        label = self._label(batch)
        if train and self.label_dropout:
            dropped = rng.uniform(rngs("label_dropout"), ()) < self.label_dropout
            label = jnp.where(dropped, -1, label)
        nats = -jnp.mean(self.log_prob(params, batch["image"], rngs("noise"), label))
        names, per_dim = self._names(), nats / self.num_dims
        return per_dim, (dict(zip(names, (nats, per_dim / np.log(2)))), model_state)

    def evaluate(self, params, model_state, batch, rngs):
        y, nats = self.add_noise(params, batch["image"], rngs("noise"))
        label = self._label(batch)
        latents, log_p = self.encode(params, y, label)
        values = {self._names()[0]: nats - log_p}
        if self.invert:
            error = jnp.max(jnp.abs(self.decode(params, latents, label) - y), axis=(1, 2, 3))
            fails = ~jnp.isfinite(error)  # a scale of nearly 0 has an inverse beyond float32
            values["inverse_error"] = jnp.where(fails, 0.0, error)
            values["inverse_fails"] = fails.astype(jnp.float32)
        return values

    def summarize(self, values):
        nats_name, bits_name = self._names()
        nats = np.mean(values[nats_name], dtype=np.float64)
        numbers = {nats_name: nats, bits_name: bits_per_dim_of_mass(nats, self.num_dims)}
        if self.invert:
            fails = values["inverse_fails"].mean(dtype=np.float64)
            errors = values["inverse_error"]
            numbers["inverse_error"] = errors.mean(dtype=np.float64) / max(1 - fails, 1e-9)
            numbers["inverse_error_max"] = np.max(errors)
            numbers["inverse_fails"] = fails
        return numbers

    # ---- Sampling ----

    def denoised(
        self, params: Params, y: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c"]:
        """Returns E[x | y] = y + std^2 d log p(y) / dy of noisy images (Zhai et al., eq. 7)."""
        score = jax.grad(lambda y: jnp.sum(self.encode(params, y, label)[1]))(y)
        return y + self.noise.std**2 * score

    def images_of(
        self,
        params: Params,
        latents: tuple[Float[Array, "b ..."], ...],
        label: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Returns images in [0, 1] of latents, as `sample` draws them."""
        y = self.decode(params, latents, label, self.guidance)
        if self.denoise and isinstance(self.noise, GaussianNoise):
            y = self.denoised(params, y, label)
        return self.noise.images(y)

    def sample(self, params, model_state, keys, labels=None):
        latents = []
        for number, shape in enumerate(self.network.latent_shapes(self.image_shape)):
            numbered = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            latents.append(rng.normal(numbered, shape))
        return self.images_of(params, scaled(tuple(latents), self.temperature), labels)

    # ---- Figures ----

    _encode_jit = functools.cached_property(lambda self: jax.jit(self.encode))
    _images_jit = functools.cached_property(lambda self: jax.jit(self.images_of))

    def figures(self, params, model_state, batch):
        batch = jax.tree.map(lambda x: x[:NUM_SHOWN], batch)
        x, label = batch["image"], self._label(batch)
        keys = rng.per_example(jax.random.key(0), jnp.arange(len(x)))
        y, _ = self.add_noise(params, x, keys)
        latents, _ = self._encode_jit(params, y, label)
        return draw_pictures(latents, label, x, functools.partial(self._images_jit, params))
