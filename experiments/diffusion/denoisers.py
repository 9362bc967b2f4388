"""What diffusion and one-step models share: processes, networks, classes, and their config fields.

Their networks are functions (x_t, time, class) -> an image of x_t's shape.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from genjax import rng
from genjax.data.transforms import clip_to_unit
from genjax.diffusion import process as processes
from genjax.diffusion.parameterization import Network
from genjax.errors import UserError
from genjax.models.dit import DiT
from genjax.models.unet import UNet
from genjax.rng import Rngs
from genjax.runner.family import Batch, Family
from genjax.runner.fields import Choice, field, is_set, require
from genjax.runner.terminal import say
from genjax.typing import Array, Float, Int, Key, ModelState, Params, Shape
from genjax.weights.networks import save_network

_VP_FIELDS = {
    "beta_min": field(0.1, "noise rate at t = 0", above=0),
    "beta_max": field(20.0, "noise rate at t = 1", above=0),
    "t_min": field(1e-3, "the smallest time", above=0, below=1),
}

# config.process: the parameters of each process of `genjax.diffusion.process`.
PROCESSES = Choice(
    {
        "edm": {
            "sigma_min": field(0.002, above=0),
            "sigma_max": field(80.0, above=0),
        },
        "flow": {"t_min": field(1e-3, "the smallest time", above=0, below=1)},
        "vp": _VP_FIELDS,
        "sub_vp": _VP_FIELDS,
        "ve": {
            "sigma_min": field(0.01, above=0),
            "sigma_max": field(50.0, above=0),
        },
        "ddpm_linear": {
            "num_steps": field(1000, "T", at_least=1),
            "beta_start": field(1e-4, above=0, below=1),
            "beta_end": field(0.02, above=0, below=1),
        },
        "ddpm_cosine": {
            "num_steps": field(1000, "T", at_least=1),
            "s": field(0.008, "offset of the cosine", at_least=0),
            "max_beta": field(0.999, above=0, below=1),
        },
    }
)

LABEL_DROPOUT = field(
    0.0,
    "how often training replaces the class by none",
    at_least=0,
    below=1,
    only_with=is_set("model.conditional"),
)

# config.model: the fields of each network of `genjax.models`.
NETWORKS = Choice(
    {
        "unet": {
            "conditional": field(False, "give the network the class"),
            "channels": field(64, "of the first stage", at_least=4),
            "multipliers": field(
                (1, 2), "channels of each stage over those", at_least=1, nonempty=True
            ),
            "num_blocks": field(1, "residual blocks of each stage", at_least=1),
            "attention": field((), "sides of feature maps with attention", items=int, at_least=1),
            "variant": field("ddpmpp", one_of=("ddpm", "ddpmpp")),
            "dropout": field(0.0, at_least=0, below=1),
            "classes_first": field(
                False,
                "add the class before the layers of the time",
                only_with=is_set("model.conditional"),
            ),
            "patch_size": field(1, "side of the squares that become one pixel", at_least=1),
            "remat": field(False, "compute blocks again for gradients, to save memory"),
        },
        "dit": {
            "conditional": field(False, "give the network the class"),
            "dim": field(128, "width of a token", at_least=4),
            "depth": field(4, "blocks", at_least=1),
            "num_heads": field(4, at_least=1),
            "patch_size": field(4, "side of a token's square", at_least=1),
            "remat": field(False, "compute blocks again for gradients, to save memory"),
        },
    }
)

_NETWORK_CLASSES = {"unet": UNet, "dit": DiT}


# ---- Configs ----


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of these families tiny."""
    tiny = {
        "unet": {"channels": 8, "multipliers": (1,), "attention": (), "num_blocks": 1},
        "dit": {"dim": 16, "depth": 1, "num_heads": 2},
    }
    return {
        "optim.warmup_steps": min(config.optim.warmup_steps, 2),
        "sample.num_steps": min(config.sample.num_steps, 4),
        **{f"model.{key}": value for key, value in tiny[config.model.name].items()},
    }


def check_shared(config: ConfigDict, class_names: tuple[str, ...]) -> None:
    """Raises a UserError for fields that do not go together in any of these families."""
    pixels, model = config.data.pixels, config.model
    require(pixels == "symmetric", "data.pixels", pixels, "'symmetric': images in [-1, 1]")
    least, most = config.process.get("sigma_min"), config.process.get("sigma_max")
    if least is not None:
        require(least < most, "process.sigma_min", least, f"less than process.sigma_max={most}")
    if model.conditional and len(class_names) < 2:
        raise UserError(f"config.data.name='{config.data.name}' has no classes to learn")
    if model.name == "dit":
        fits = model.dim % (4 * model.num_heads) == 0
        what = f"a multiple of 4 x model.num_heads={model.num_heads}"
        require(fits, "model.dim", model.dim, what)


def check_attention(config: ConfigDict, image_shape: Shape) -> None:
    """Raises a UserError for attention at sides that no feature maps of the network have."""
    model = config.model
    if model.name == "unet":
        stages = range(len(model.multipliers))
        sides = [image_shape[0] // (model.patch_size * 2**stage) for stage in stages]
        what = f"some of the sides of the network's feature maps, {', '.join(map(str, sides))}"
        require(set(model.attention) <= set(sides), "model.attention", model.attention, what)


def make_process(config: ConfigDict) -> processes.Process:
    """Returns the process of a config."""
    parameters = config.process.to_dict()
    return processes.PROCESSES[parameters.pop("name")](**parameters)


def make_network(config: ConfigDict, class_names: tuple[str, ...]) -> nn.Module:
    """Returns the network of a config, with the classes of its data if config.model wants them."""
    fields = config.model.to_dict()
    network = _NETWORK_CLASSES[fields.pop("name")]
    num_classes = len(class_names) if fields.pop("conditional") else 0
    return network(num_classes=num_classes, dtype=config.compute_dtype, **fields)


# ---- The shared part of the families ----


@dataclasses.dataclass(frozen=True, eq=False)
class DenoisingFamily(Family):
    """A family around one network of noisy images, noise levels and classes.

    Attributes:
      network: (x [B, H, W, C], c_noise [B] or [B, K], labels int32 [B], train) -> [B, H, W, C]. Its
        field `num_classes` is 0 without classes; label `num_classes` means no class.
      image_shape: (H, W, C) of the images, whose pixels are in [-1, 1].
      label_dropout: the probability with which training replaces a class by no class.
      initial_params: () -> parameters that training starts with instead of those of `init`.
      metadata: texts for an exported file.
      num_times: K, the numbers that the network takes for the time.
    """

    network: nn.Module
    image_shape: Shape
    label_dropout: float | int = 0.0
    initial_params: Callable[[], Params] | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    num_times: ClassVar[int] = 1

    @property
    def num_classes(self) -> int:
        """Classes that the network gets; 0 for none."""
        return self.network.num_classes

    @property
    def sample_takes_labels(self) -> bool:
        return self.num_classes > 0

    def init(self, key: Key[Array, ""], images: Array | None = None) -> tuple[Params, ModelState]:
        x, c_noise = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self.num_times))
        return self.network.init(key, x, c_noise, jnp.zeros(1, jnp.int32))["params"], {}

    def applied(
        self,
        params: Params,
        labels: Int[Array, " b"],
        train: bool = False,
        dropout: Key[Array, ""] | None = None,
    ) -> Network:
        """Returns the network as a function (x, c_noise) -> prediction.

        Args:
          params: of the network.
          labels: the classes.
          train: whether dropout is on.
          dropout: its key; only needed with `train`.
        """
        rngs = {"dropout": dropout} if train else {}
        return lambda x, c: self.network.apply({"params": params}, x, c, labels, train, rngs=rngs)

    def applied_in_training(self, params: Params, batch: Batch, rngs: Rngs, train: bool) -> Network:
        """Returns the network for a loss: some of the classes are dropped."""
        labels = batch["label"]
        if self.num_classes:
            labels = self.drop_labels(labels, rngs("label"))
        return self.applied(params, labels, train, rngs.layer("dropout"))

    def drop_labels(self, labels: Int[Array, " b"], keys: Key[Array, " b"]) -> Int[Array, " b"]:
        """Replaces each label with probability `label_dropout` by the label of no class."""
        dropped = rng.uniform(keys, ()) < self.label_dropout
        return jnp.where(dropped, self.num_classes, labels)

    def export(self, params: Params, model_state: ModelState, folder: Path) -> None:
        """Writes the network for other programs, as `unet.safetensors` or `dit.safetensors`."""
        path = Path(folder) / f"{type(self.network).__name__.lower()}.safetensors"
        names = save_network(path, self.network, params, dict(self.metadata))
        say(f"network saved to {path}, under {names} names")


def no_labels(keys: Key[Array, " b"]) -> Int[Array, " b"]:
    """Returns the labels for a network without classes, which ignores them."""
    return jnp.zeros(keys.shape[0], jnp.int32)


def to_unit(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps [-1, 1] to [0, 1] and clips what is outside."""
    return clip_to_unit((x + 1) / 2)
