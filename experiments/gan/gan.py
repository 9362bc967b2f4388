"""Generative adversarial networks (Goodfellow et al. 2014).

  min over D of  E[loss_D(D(T(x)), D(T(G(z))))] + terms that keep D smooth
  min over G of  E[loss_G(D(T(x)), D(T(G(z))))]

with T the augmentation (`experiments.gan.augmentation`) and the terms of
`experiments.gan.penalties`; networks, losses, terms and augmentation are independent choices.

A step is d_steps updates of the discriminator, each on its own share of the batch, and one of the
generator, on the images that were compared with the last share: `config.batch_size` counts the real
images of all updates.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.gan.augmentation import (
    POLICIES,
    Augmentation,
    NoAugmentation,
    make_augmentation,
)
from experiments.gan.penalties import Penalties
from genjax import plots, rng
from genjax.data.transforms import PIXELS, clip_to_unit
from genjax.devices import gathered, mean_over_devices, scan, sum_over_devices
from genjax.diffusion.editing import slerp
from genjax.models.dcgan import DcganDiscriminator, DcganGenerator
from genjax.models.mlp_gan import MlpDiscriminator, MlpGenerator
from genjax.models.r3gan import R3ganDiscriminator, R3ganGenerator
from genjax.models.sngan import SnganDiscriminator, SnganGenerator
from genjax.objectives.adversarial import LOSSES
from genjax.rng import Rngs
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import make_config
from genjax.runner.family import Batch, Family
from genjax.runner.fields import choose, field, is_set, one_of, other_than, require
from genjax.train.optimizers import make_optimizer, make_schedule
from genjax.train.state import Ema, TrainState
from genjax.train.step import split_batch
from genjax.typing import Array, Float, Int, Key, ModelState, Params, Shape

NUM_WALKS, WALK_STEPS = 5, 10  # rows and columns of an interpolation
CLASS_ROWS, MAX_CLASSES = 8, 16  # rows and the most columns of a grid of classes

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


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "Gan":
    """Builds the GAN of a config."""
    _check(config, class_names)
    model, objective = config.model, config.objective
    generator, discriminator = make_networks(model, image_shape, config.compute_dtype)
    return Gan(
        generator=generator,
        discriminator=discriminator,
        image_shape=image_shape,
        latent_dim=model.latent_dim,
        num_classes=len(class_names) if model.conditional else 0,
        adversarial_loss=objective.loss,
        label_smoothing=objective.label_smoothing,
        penalties=Penalties(
            r1=objective.r1,
            r2=objective.r2,
            gradient_penalty=objective.gradient_penalty,
            interval=objective.penalty_interval,
            lecam=objective.lecam,
            spectral_norm=objective.spectral_norm,
        ),
        augmentation=make_augmentation(config.augment),
        d_steps=objective.d_steps,
        discriminator_tx=discriminator_optimizer(config),
        standing_samples=config.eval.standing_samples,
        standing_seed=config.eval.seed,
        figures_seed=config.sample.seed,
    )


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


def _check(config: ConfigDict, class_names: tuple[str, ...]) -> None:
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
    require(accumulate == 1, "optim.accumulate_steps", accumulate, "1 with config.experiment=gan")
    parts = objective.d_steps * (config.num_devices or jax.device_count())
    what = f"a multiple of devices x objective.d_steps = {parts}"
    require(config.batch_size % parts == 0, "batch_size", config.batch_size, what)
    for name in augment.policy:
        choose(POLICIES[augment.name], name, "augment.policy")
    never = augment.name == "ada" and augment.p == augment.target == 0
    require(not never, "augment.p", augment.p, "above 0 with augment.target=0, which keeps it")
    fits = augment.name != "ada" or augment.target == 0 or loss.signed
    what = f"0 {with_loss}: the sign of its logits does not tell real from generated images"
    require(fits, "augment.target", augment.target, what)


class GeneratorState(NamedTuple):
    """What an update of the generator changes."""

    params: Params
    opt_state: Any


class DiscriminatorState(NamedTuple):
    """What an update of the discriminator changes.

    Attributes:
      params: of the discriminator.
      opt_state: of its optimizer.
      model_state: entries "spectral", "lecam" and "ada", where they are used.
    """

    params: Params
    opt_state: Any
    model_state: ModelState


@dataclasses.dataclass(frozen=True, eq=False)
class Gan(Family):
    """A GAN: networks and settings; parameters and batches are arguments of its methods.

    Parameters are {"generator", "discriminator"}. The model state has the generator's variables
    ("generator": batch statistics) and, where they are used, the state of power iteration
    ("spectral"), of LeCam ("lecam") and of ADA ("ada").

    Attributes:
      generator: (z [B, D], y [B, K] or None, train) -> images [B, H, W, C] in [-1, 1].
      discriminator: (images, y) -> logits [B].
      image_shape: (H, W, C).
      latent_dim: D.
      num_classes: K, classes that both networks get, one-hot; 0: none.
      adversarial_loss: a key of `genjax.objectives.adversarial.LOSSES`.
      label_smoothing: of the real images' labels, for the losses that have labels.
      penalties: terms that keep the discriminator smooth.
      augmentation: of the discriminator's inputs.
      d_steps: updates of the discriminator in each step, on equal shares of the batch.
      discriminator_tx: the discriminator's optimizer; None: that of the generator.
      standing_samples: generated images that the generator's batch statistics for evaluation are
        computed from; 0: the running averages of training.
      standing_seed: of these images.
      figures_seed: of the latents in `figures`.
    """

    generator: nn.Module
    discriminator: nn.Module
    image_shape: Shape
    latent_dim: int
    num_classes: int = 0
    adversarial_loss: str = "non_saturating"
    label_smoothing: float = 0.0
    penalties: Penalties = Penalties()
    augmentation: Augmentation = NoAugmentation()
    d_steps: int = 1
    discriminator_tx: optax.GradientTransformation | None = None
    standing_samples: int = 0
    standing_seed: int = 0
    figures_seed: int = 0

    @property
    def sample_takes_labels(self) -> bool:
        return self.num_classes > 0

    @property
    def updates_per_step(self) -> tuple[tuple[str, int], ...]:
        return (("generator", 1), ("discriminator", self.d_steps))

    # ---- Networks ----

    def init(self, key, images=None):
        keys = jax.random.split(key, 3)
        y = self.one_hot(jnp.zeros(1, jnp.int32))
        generator = self.generator.init(keys[0], jnp.zeros((1, self.latent_dim)), y)
        x = jnp.zeros((1, *self.image_shape))
        params = {
            "generator": generator["params"],
            "discriminator": self.discriminator.init(keys[1], x, y)["params"],
        }
        model_state = self.penalties.init(params["discriminator"], keys[2])
        if "batch_stats" in generator:
            model_state["generator"] = {"batch_stats": generator["batch_stats"]}
        feedback = self.augmentation.init()
        if feedback is not None:
            model_state["ada"] = feedback
        return params, model_state

    def one_hot(self, labels: Array | np.ndarray | None) -> Float[Array, "b k"] | None:
        """Returns labels int32 [B] as the networks take them, or None without classes."""
        return jax.nn.one_hot(labels, self.num_classes) if self.num_classes else None

    def generate(
        self,
        params: Params,
        statistics: ModelState,
        z: Float[Array, "b d"],
        y: Float[Array, "b k"] | None,
        train: bool = False,
    ) -> tuple[Float[Array, "b h w c"], ModelState]:
        """Generates images from latents.

        Args:
          params: of the generator.
          statistics: of its batch norm, {} if it has none.
          z, y: latents and labels.
          train: whether to normalise by the statistics of this batch.

        Returns:
          images in [-1, 1], new statistics.
        """
        variables = {"params": params, **statistics}
        if not (train and statistics):
            return self.generator.apply(variables, z, y, train), statistics
        return self.generator.apply(variables, z, y, True, mutable=list(statistics))

    def critic(
        self, weights: Params, model_state: ModelState
    ) -> Callable[[Array, Array, Array | None], Array]:
        """Returns D(T(x)) as a function of images, keys and labels.

        Args:
          weights: of the discriminator, after spectral normalisation.
          model_state: has the state of the augmentation.
        """

        def score(x: Array, keys: Array, y: Array | None) -> Array:
            x = self.augmentation(x, keys, model_state.get("ada"))
            return self.discriminator.apply({"params": weights}, x, y)

        return score

    # ---- Losses ----

    def discriminator_loss(
        self,
        params: Params,
        model_state: ModelState,
        real: Float[Array, "b h w c"],
        fake: Float[Array, "b h w c"],
        y: Float[Array, "b k"] | None,
        rngs: Rngs,
        update: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, ""], tuple[dict[str, Array], Params]]:
        """Computes the loss of the discriminator.

        Args:
          params: of the discriminator.
          model_state: entries "spectral", "lecam", "ada", where they are used.
          real, fake: images; no gradient flows back through the generated ones.
          y: labels of both.
          rngs: keys of augmentation and interpolation.
          update: number of the discriminator's update, from 0.

        Returns:
          loss, (its terms and mean logits by name, new vectors of spectral normalisation or {}).
        """
        weights, vectors = self.penalties.normalize(params, model_state)
        critic = self.critic(weights, model_state)
        fake = jax.lax.stop_gradient(fake)
        (r, f), penalty = self.penalties.logits_and_penalty(critic, real, fake, y, rngs, update)
        loss_fn = LOSSES[self.adversarial_loss].discriminator
        loss = jnp.mean(loss_fn(r, f, self.label_smoothing))
        metrics = {
            "loss_discriminator": loss,
            "real_logits": jnp.mean(r),
            "fake_logits": jnp.mean(f),
        }
        if self.penalties.lecam:
            metrics["lecam"] = self.penalties.lecam_term(r, f, model_state)
            loss += metrics["lecam"]
        if penalty is not None:
            metrics["penalty"] = penalty
            loss += penalty
        if "ada" in model_state:
            metrics["augment_r_t"] = jnp.mean(jnp.sign(r))
        return loss, ({"loss": loss, **metrics}, vectors)

    def generator_loss(
        self,
        fake: Float[Array, "b h w c"],
        params: Params,
        model_state: ModelState,
        real: Float[Array, "b h w c"],
        y: Float[Array, "b k"] | None,
        rngs: Rngs,
    ) -> Float[Array, ""]:
        """Computes the loss of the generator as a function of its images.

        Args:
          fake: generated images.
          params: of the discriminator, constants here.
          model_state: as in `discriminator_loss`.
          real: images, for relativistic losses.
          y: labels of both.
          rngs: keys of augmentation.
        """
        loss = LOSSES[self.adversarial_loss]
        weights, _ = self.penalties.normalize(jax.lax.stop_gradient(params), model_state)
        critic = self.critic(weights, model_state)
        f = critic(fake, rngs("augment_generator"), y)
        r = jnp.zeros_like(f)
        if loss.relativistic:
            r = critic(real, rngs("augment_generator_real"), y)
        return jnp.mean(loss.generator(r, f))

    # ---- Training ----

    def init_optimizer(self, tx, params):
        discriminator_tx = self.discriminator_tx or tx
        return {
            "generator": tx.init(params["generator"]),
            "discriminator": discriminator_tx.init(params["discriminator"]),
        }

    def averaged(self, params):
        return {"generator": params["generator"]}

    def train_step(
        self,
        state: TrainState,
        batch: Batch,
        rngs: Rngs,
        tx: optax.GradientTransformation,
        ema: Ema,
    ) -> tuple[TrainState, dict[str, Any]]:
        """Updates the discriminator `d_steps` times, then the generator.

        `tx` is the optimizer of the generator, and that of the discriminator where it has no other.
        The metrics are means over the updates of the discriminator, and "grads" of both networks.
        """
        params, opt_state = state.params, state.opt_state
        model_state = dict(state.model_state)
        statistics = model_state.pop("generator", {})
        shares = self._shares(batch, rngs)
        shares["update"] = state.step * self.d_steps + jnp.arange(self.d_steps)
        shares["fake"], pullback, statistics = self._generate_shares(
            params["generator"], statistics, shares
        )
        discriminator, (d_grads, metrics) = scan(
            lambda d, share: self.update_discriminator(d, share, rngs, self.discriminator_tx or tx),
            DiscriminatorState(params["discriminator"], opt_state["discriminator"], model_state),
            shares,
        )
        d_grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), (d_grads, metrics))
        last = jax.tree.map(lambda x: x[-1], shares)
        generator, g_grads, metrics["loss_generator"] = self.update_generator(
            GeneratorState(params["generator"], opt_state["generator"]),
            discriminator,
            last,
            pullback,
            rngs,
            tx,
        )
        grads = {"generator": g_grads, "discriminator": d_grads}
        metrics |= {f"grad_norm_{name}": optax.tree.norm(x) for name, x in grads.items()}
        model_state = discriminator.model_state
        if "ada" in model_state:
            metrics["augment_p"] = model_state["ada"]["p"]
        if statistics:
            model_state = {**model_state, "generator": statistics}
        params = {"generator": generator.params, "discriminator": discriminator.params}
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state={
                "generator": generator.opt_state,
                "discriminator": discriminator.opt_state,
            },
            ema_params=(
                ema.update(state.ema_params, self.averaged(params), state.updates)
                if ema.enabled
                else {}
            ),
        )
        return new_state, {**metrics, "grads": grads}

    def _shares(self, batch: Batch, rngs: Rngs) -> dict[str, Array]:
        """Returns what each update of the discriminator uses, [d_steps, B / d_steps, ...]."""
        latents = rng.normal(rngs("latent"), (self.latent_dim,))
        shares = {"real": batch["image"], "slot": batch["slot"], "z": latents}
        if self.num_classes:
            shares["y"] = self.one_hot(batch["label"])
        return split_batch(shares, self.d_steps)

    def _generate_shares(
        self, params: Params, statistics: ModelState, shares: dict[str, Array]
    ) -> tuple[Array, Callable[[Array], tuple[Params]], ModelState]:
        """Generates the images of all shares: the generator is constant until its own update.

        Returns:
          images [d_steps, B / d_steps, H, W, C]; (gradient with respect to the images of the last
          share) -> (gradient with respect to the parameters,); batch statistics of that share.
        """
        first = jax.tree.map(lambda x: x[:-1], shares)
        last = jax.tree.map(lambda x: x[-1], shares)

        def images_of(params, share):
            return self.generate(params, statistics, share["z"], share.get("y"), train=True)

        images, pullback, statistics = jax.vjp(
            lambda params: images_of(gathered(params), last), params, has_aux=True
        )
        images = images[None]
        if self.d_steps > 1:
            # One share after the other: `vmap` would gather all shares on every device, since it
            # makes their axis the outer one of a convolution's batch.
            whole = gathered(params)
            _, earlier = scan(lambda _, share: (None, images_of(whole, share)[0]), None, first)
            images = jnp.concatenate([earlier, images])
        return images, pullback, statistics

    def update_discriminator(
        self,
        state: DiscriminatorState,
        share: dict[str, Array],
        rngs: Rngs,
        tx: optax.GradientTransformation,
    ) -> tuple[DiscriminatorState, tuple[Params, dict[str, Array]]]:
        """Updates the discriminator once.

        Args:
          state: before the update.
          share: "real" and "fake" images [B, H, W, C], labels "y" [B, K] if any, "slot" int32 [B],
            and "update", the number of the update.
          rngs: of the step.
          tx: the discriminator's optimizer.

        Returns:
          the state after the update, (gradient, scalar metrics).
        """
        share_rngs = dataclasses.replace(rngs, index=share["slot"])
        loss_of = lambda params, *args: self.discriminator_loss(gathered(params), *args)
        (_, (metrics, vectors)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            state.params,
            state.model_state,
            share["real"],
            share["fake"],
            share.get("y"),
            share_rngs,
            share["update"],
        )
        grads, metrics = mean_over_devices((grads, metrics))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        model_state = self.penalties.update(state.model_state, metrics, vectors)
        if "ada" in model_state:
            batch_size = sum_over_devices(len(share["real"]))
            model_state["ada"] = self.augmentation.update(
                model_state["ada"], metrics["augment_r_t"], batch_size
            )
        params = optax.apply_updates(state.params, updates)
        return DiscriminatorState(params, opt_state, model_state), (grads, metrics)

    def update_generator(
        self,
        state: GeneratorState,
        discriminator: DiscriminatorState,
        share: dict[str, Array],
        pullback: Callable[[Array], tuple[Params]],
        rngs: Rngs,
        tx: optax.GradientTransformation,
    ) -> tuple[GeneratorState, Params, Float[Array, ""]]:
        """Updates the generator once.

        Args:
          state: before the update.
          discriminator: after its updates.
          share: as in `update_discriminator`.
          pullback: (gradient with respect to "fake") -> (gradient with respect to the parameters,).
          rngs: of the step.
          tx: the generator's optimizer.

        Returns:
          the state after the update, gradient, loss.
        """
        share_rngs = dataclasses.replace(rngs, index=share["slot"])
        loss, image_grads = jax.value_and_grad(self.generator_loss)(
            share["fake"],
            gathered(discriminator.params),
            discriminator.model_state,
            share["real"],
            share.get("y"),
            share_rngs,
        )
        grads, loss = mean_over_devices((pullback(image_grads)[0], loss))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return GeneratorState(params, opt_state), grads, loss

    # ---- Evaluation ----

    def _images(
        self,
        params: Params,
        model_state: ModelState,
        z: Float[Array, "b d"],
        y: Float[Array, "b k"] | None,
    ) -> Float[Array, "b h w c"]:
        """Generates images as in evaluation; in [-1, 1] or a little outside."""
        return self.generate(params["generator"], model_state.get("generator", {}), z, y)[0]

    @property
    def standing_statistics(self) -> Callable[[Params, ModelState], ModelState] | None:
        has_batch_norm = getattr(self.generator, "momentum", None) is not None
        return self._standing_statistics if has_batch_norm and self.standing_samples else None

    def _standing_statistics(self, params: Params, model_state: ModelState) -> ModelState:
        """Computes the generator's batch statistics from one batch of `standing_samples` images."""
        count = self.standing_samples
        key = rng.stream(jax.random.key(self.standing_seed), "standing")
        z = rng.normal(rng.per_example(key, jnp.arange(count)), (self.latent_dim,))
        y = self.one_hot(jnp.arange(count) % max(self.num_classes, 1))
        # Without momentum the running averages are the statistics of the last batch.
        one_batch = dataclasses.replace(self, generator=self.generator.clone(momentum=0.0))
        statistics = model_state["generator"]
        _, statistics = one_batch.generate(params["generator"], statistics, z, y, train=True)
        return {**model_state, "generator": statistics}

    def evaluate(self, params, model_state, batch, rngs):
        y = self.one_hot(batch["label"])
        z = rng.normal(rngs("latent"), (self.latent_dim,))
        weights, _ = self.penalties.normalize(params["discriminator"], model_state)
        score = lambda x: self.discriminator.apply({"params": weights}, x, y)
        r, f = score(batch["image"]), score(self._images(params, model_state, z, y))
        ranked = (r > f).astype(jnp.float32)
        return {"real_logits": r, "fake_logits": f, "real_above_fake": ranked}

    # ---- Sampling and drawing ----

    def sample(self, params, model_state, keys, labels=None):
        y = None if labels is None else self.one_hot(labels)
        z = rng.normal(keys, (self.latent_dim,))
        return to_unit(self._images(params, model_state, z, y))

    def interpolations(
        self, params: Params, model_state: ModelState, key: Key[Array, ""]
    ) -> dict[str, Float[Array, "n h w c"]]:
        """Generates walks between latents, straight and on the sphere, and a grid of classes.

        Returns:
          images in [0, 1] by name, row by row.
        """
        ends = jax.random.normal(key, (2, NUM_WALKS, self.latent_dim))
        u = jnp.linspace(0.0, 1.0, WALK_STEPS)
        straight = lambda a, b, u: (1 - u) * a + u * b
        walks = lambda path: jax.vmap(jax.vmap(path, (None, None, 0)), (0, 0, None))(*ends, u)
        latents = {"walk_straight": walks(straight), "walk_sphere": walks(slerp)}
        rows = np.arange(NUM_WALKS) % max(self.num_classes, 1)
        labels = {name: np.repeat(rows, WALK_STEPS) for name in latents}
        if self.num_classes:
            columns = min(self.num_classes, MAX_CLASSES)
            z = jax.random.normal(jax.random.fold_in(key, 1), (CLASS_ROWS, 1, self.latent_dim))
            latents["classes"] = jnp.broadcast_to(z, (CLASS_ROWS, columns, self.latent_dim))
            labels["classes"] = np.tile(np.arange(columns), CLASS_ROWS)
        z = jnp.concatenate([z.reshape(-1, self.latent_dim) for z in latents.values()])
        y = self.one_hot(np.concatenate(list(labels.values())))
        images = to_unit(self._images(params, model_state, z, y))
        counts = [len(own) for own in labels.values()]
        return dict(zip(labels, jnp.split(images, np.cumsum(counts)[:-1])))

    _interpolations_jit = functools.cached_property(lambda self: jax.jit(self.interpolations))

    def figures(self, params, model_state, batch):
        key = rng.stream(jax.random.key(self.figures_seed), "figures")
        images = self._interpolations_jit(params, model_state, key)
        columns = {"classes": min(self.num_classes, MAX_CLASSES)}
        return {
            name: plots.grid(plots.to_uint8(x), columns.get(name, WALK_STEPS))
            for name, x in images.items()
        }


def to_unit(images: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps [-1, 1] to [0, 1] and clips what is outside."""
    return clip_to_unit((images + 1) / 2)
