"""Generative adversarial networks (Goodfellow et al. 2014).

  min over D of  E[loss_D(D(T(x)), D(T(G(z))))] + terms that keep D smooth
  min over G of  E[loss_G(D(T(x)), D(T(G(z))))]

with T the augmentation (`experiments.gan.augmentation`) and the terms of
`experiments.gan.penalties`; networks, losses, terms and augmentation are independent choices
(`experiments.gan.config`).

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

from experiments.gan import figures
from experiments.gan.augmentation import Augmentation, NoAugmentation, make_augmentation
from experiments.gan.config import FIELDS as FIELDS
from experiments.gan.config import check, discriminator_optimizer, make_networks
from experiments.gan.config import default_config as default_config
from experiments.gan.config import smoke as smoke
from experiments.gan.penalties import Penalties
from genjax import rng
from genjax.data.transforms import clip_to_unit
from genjax.devices import gathered, mean_over_devices, scan, sum_over_devices
from genjax.objectives.adversarial import LOSSES
from genjax.rng import Rngs
from genjax.runner.family import Batch, Family
from genjax.train.state import Ema, TrainState
from genjax.train.step import split_batch
from genjax.typing import Array, Float, Int, Key, ModelState, Params, Shape


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "Gan":
    """Builds the GAN of a config."""
    check(config, class_names)
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
        """Generates images in [0, 1] by name: see `figures.interpolations`."""

        def generate(z, labels):
            return to_unit(self._images(params, model_state, z, self.one_hot(labels)))

        return figures.interpolations(generate, self.latent_dim, self.num_classes, key)

    _interpolations_jit = functools.cached_property(lambda self: jax.jit(self.interpolations))

    def figures(self, params, model_state, batch):
        key = rng.stream(jax.random.key(self.figures_seed), "figures")
        images = self._interpolations_jit(params, model_state, key)
        return figures.pictures(images, self.num_classes)


def to_unit(images: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps [-1, 1] to [0, 1] and clips what is outside."""
    return clip_to_unit((images + 1) / 2)
