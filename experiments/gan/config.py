"""The config of a GAN: its fields, which of them go together, networks and optimizer."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import optax
from ml_collections import ConfigDict

from experiments.gan.augmentation import POLICIES
from genjax.data.transforms import PIXELS
from genjax.models.dcgan import DcganDiscriminator, DcganGenerator
from genjax.models.mlp_gan import MlpDiscriminator, MlpGenerator
from genjax.models.r3gan import R3ganDiscriminator, R3ganGenerator
from genjax.models.sngan import SnganDiscriminator, SnganGenerator
from genjax.objectives.adversarial import LOSSES
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import make_config
from genjax.runner.fields import choose, field, is_set, one_of, other_than, require
from genjax.train.optimizers import make_optimizer, make_schedule
from genjax.typing import Shape

# config.model.name -> (generator class, discriminator class)
NETWORKS = {
    "mlp_gan": (MlpGenerator, MlpDiscriminator),
    "dcgan": (DcganGenerator, DcganDiscriminator),
    "sngan": (SnganGenerator, SnganDiscriminator),
    "r3gan": (R3ganGenerator, R3ganDiscriminator),
}

R3GAN = one_of("model.name", "r3gan")
NORMALIZED = other_than("model.name", "r3gan")
ADA = one_of("augment.name", "ada")

FIELDS = {
    "optim": {
        "lr": dataclasses.replace(
            SHARED["optim"]["lr"], default=2e-4, doc="peak learning rate of the generator"
        ),
        "b1": dataclasses.replace(SHARED["optim"]["b1"], default=0.5),
    },
    "data": {"pixels": field("symmetric", "no other: images in [-1, 1]", one_of=PIXELS)},
    "model": {
        "name": field("mlp_gan", one_of=NETWORKS),
        "latent_dim": field(100, at_least=1),
        "conditional": field(False, "give both networks the class"),
        "generator_features": field((256, 512, 1024), at_least=1, nonempty=True),
        "discriminator_features": field((512, 256), at_least=1, nonempty=True),
        "norm_momentum": field(
            0.8, "of the generator's batch norm", at_least=0, below=1, only_with=NORMALIZED
        ),
        "blocks": field(2, "of each stage of r3gan", at_least=1, only_with=R3GAN),
        "expansion": field(
            2, "channels inside a block of r3gan over those outside", at_least=1, only_with=R3GAN
        ),
        "group": field(
            16, "channels of each group of r3gan's convolutions", at_least=1, only_with=R3GAN
        ),
        "float32_stages": field(
            0,
            "stages of r3gan, from the lowest resolution, that config.compute_dtype leaves float32",
            at_least=0,
            only_with=R3GAN,
        ),
        "remat": field(
            False, "compute blocks of r3gan again for gradients, to save memory", only_with=R3GAN
        ),
    },
    "objective": {
        "loss": field("non_saturating", one_of=LOSSES),
        "label_smoothing": field(0.0, "of the real images' labels", at_least=0, below=1),
        "d_steps": field(1, "updates of the discriminator per update of the generator", at_least=1),
        "d_lr_ratio": field(1.0, "learning rate of the discriminator over optim.lr", above=0),
        "r1": field(0.0, "gamma of R1, on real images", at_least=0),
        "r2": field(0.0, "gamma of R2, on generated images", at_least=0),
        "gradient_penalty": field(0.0, "lambda of WGAN-GP", at_least=0),
        "penalty_interval": field(
            1,
            "these three in every k-th update, k times as large",
            at_least=1,
            only_with=is_set("objective.r1", "objective.r2", "objective.gradient_penalty"),
        ),
        "lecam": field(0.0, "weight of LeCam", at_least=0),
        "spectral_norm": field(False, "of the discriminator"),
    },
    "augment": {
        "name": field("none", one_of=POLICIES),
        "policy": field(
            (),
            "groups of operations; (): all",
            items=str,
            only_with=other_than("augment.name", "none"),
        ),
        "p": field(0.0, "the initial probability of ada", at_least=0, at_most=1, only_with=ADA),
        "target": field(
            0.6, "of ada's feedback; 0: p stays as it is", at_least=0, below=1, only_with=ADA
        ),
        "interval": field(
            4,
            "updates of the discriminator between changes of p",
            at_least=1,
            only_with=is_set("augment.target"),
        ),
        "speed_images": field(
            500_000,
            "real images in which p could go from 0 to 1",
            at_least=1,
            only_with=is_set("augment.target"),
        ),
    },
    "eval": {
        "standing_samples": field(
            0,
            "generated images that the generator's batch statistics are computed from, with the "
            "parameters that are evaluated; 0: the running averages of training",
            at_least=0,
            only_with=NORMALIZED,
        ),
    },
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("gan", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    model, objective = config.model, config.objective
    height, width, _ = config.data.image_shape
    values = {
        "data.image_shape": (height, width, 1),
        "optim.warmup_steps": min(config.optim.warmup_steps, 2),
        "model.generator_features": (8, 4)[: len(model.generator_features)],
        "model.discriminator_features": (4, 8)[: len(model.discriminator_features)],
        "model.blocks": 1,
        "model.group": 4,
        "model.float32_stages": min(model.float32_stages, 1),
        "objective.d_steps": min(objective.d_steps, 2),
        "objective.penalty_interval": min(objective.penalty_interval, 4),
        "eval.standing_samples": min(config.eval.standing_samples, 32),
        "eval.metrics": tuple(name for name in config.eval.metrics if name != "modes"),
        "checkpoint.best_metric": "",
    }
    if (height, width) != (28, 28):  # the feature net of the digits takes no others
        values |= {"eval.num_samples": 0, "eval.num_samples_in_loop": 0}
    return values


def check(config: ConfigDict, class_names: tuple[str, ...]) -> None:
    """Raises a UserError for fields that do not go together."""
    model, objective, augment = config.model, config.objective, config.augment
    loss = LOSSES[objective.loss]
    with_loss = f"with config.objective.loss={objective.loss}"
    stages = min(len(model.generator_features), len(model.discriminator_features))
    what = f"at most {stages}, the stages of model.generator_features and discriminator_features"
    full = model.float32_stages
    require(full <= stages, "model.float32_stages", full, what)
    pixels = config.data.pixels
    require(pixels == "symmetric", "data.pixels", pixels, "'symmetric': images in [-1, 1]")
    classes = not model.conditional or len(class_names) > 1
    what = f"False: config.data.name='{config.data.name}' has no classes"
    require(classes, "model.conditional", True, what)
    smoothing = objective.label_smoothing
    fits = smoothing == 0 or loss.smooths
    require(fits, "objective.label_smoothing", smoothing, f"0 {with_loss}")
    fits = objective.lecam == 0 or not loss.relativistic
    require(fits, "objective.lecam", objective.lecam, f"0 {with_loss}")
    accumulate = config.optim.accumulate_steps
    what = f"1 with config.model.name={model.name}: its batch norm looks at all images of an update"
    exact = accumulate == 1 or model.name == "r3gan"
    require(exact, "optim.accumulate_steps", accumulate, what)
    parts = objective.d_steps * (config.num_devices or jax.device_count())
    what = f"a multiple of devices x objective.d_steps = {parts}"
    if accumulate > 1:
        parts *= accumulate
        what = f"a multiple of devices x objective.d_steps x optim.accumulate_steps = {parts}"
    require(config.batch_size % parts == 0, "batch_size", config.batch_size, what)
    for name in augment.policy:
        choose(POLICIES[augment.name], name, "augment.policy")
    never = augment.name == "ada" and augment.p == augment.target == 0
    require(not never, "augment.p", augment.p, "above 0 with augment.target=0, which keeps it")
    fits = augment.name != "ada" or augment.target == 0 or loss.signed
    what = f"0 {with_loss}: the sign of its logits does not tell real from generated images"
    require(fits, "augment.target", augment.target, what)


def make_networks(
    model: ConfigDict, image_shape: Shape, dtype: str = "float32"
) -> tuple[nn.Module, nn.Module]:
    """Returns the generator and the discriminator of `config.model`."""
    generator, discriminator = NETWORKS[model.name]
    shared, norm = {"dtype": dtype}, {"momentum": model.norm_momentum}
    if model.name == "r3gan":
        fields = ("blocks", "expansion", "group", "float32_stages", "remat")
        shared |= {name: model[name] for name in fields}
        norm = {}
    return (
        generator(image_shape, tuple(model.generator_features), **norm, **shared),
        discriminator(tuple(model.discriminator_features), **shared),
    )


def discriminator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optimizer of config.optim at the discriminator's own learning rate.

    It is updated `config.objective.d_steps` times a step; its schedule counts steps all the same.
    """
    optim, objective = config.optim.to_dict(), config.objective
    del optim["accumulate_steps"]
    peak = objective.d_lr_ratio * optim.pop("lr")
    every, warmup = objective.d_steps, optim.pop("warmup_steps")
    schedule = make_schedule(peak, optim.pop("schedule"), warmup, config.num_train_steps)
    optim["warmup_steps"] = warmup * every
    return make_optimizer(optim.pop("name"), lambda count: schedule(count // every), **optim)
