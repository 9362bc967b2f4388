"""Generative adversarial networks (Goodfellow et al. 2014).

  min over D of  E[loss_D(D(T(x)), D(T(G(z))))] + terms that keep D smooth
  min over G of  E[loss_G(D(T(x)), D(T(G(z))))]

with T the augmentation (`experiments.gan.augmentation`) and the terms of
`experiments.gan.penalties`; networks, losses, terms and augmentation are independent choices. The
losses are in `experiments.gan.losses`, the updates in `experiments.gan.updates`, the config's
fields in `experiments.gan.config`.

A step is d_steps updates of the discriminator, each on its own share of the batch, and one of the
generator, on the images that were compared with the last share: `config.batch_size` counts the real
images of all updates.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.gan.augmentation import make_augmentation
from experiments.gan.config import (
    FIELDS,
    check,
    default_config,
    discriminator_optimizer,
    make_networks,
    smoke,
)
from experiments.gan.figures import interpolations, pictures
from experiments.gan.losses import Losses
from experiments.gan.penalties import Penalties
from experiments.gan.updates import DiscriminatorState, GeneratorState, Updates
from genjax import rng
from genjax.data.transforms import clip_to_unit
from genjax.devices import scan
from genjax.rng import Rngs
from genjax.runner.family import Batch, Family
from genjax.train.state import Ema, TrainState
from genjax.train.step import split_batch
from genjax.typing import Array, Float, Key, ModelState, Params, Shape

__all__ = ["FIELDS", "Gan", "build", "default_config", "discriminator_optimizer", "smoke"]


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
        accumulate_steps=config.optim.accumulate_steps,
        standing_samples=config.eval.standing_samples,
        standing_seed=config.eval.seed,
        figures_seed=config.sample.seed,
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Gan(Losses, Family):
    """A GAN: networks and settings; parameters and batches are arguments of its methods.

    Parameters are {"generator", "discriminator"}. The model state has the generator's variables
    ("generator": batch statistics) and, where they are used, the state of power iteration
    ("spectral"), of LeCam ("lecam") and of ADA ("ada").

    Attributes, besides those of `Losses`:
      image_shape: (H, W, C).
      latent_dim: D.
      num_classes: K, classes that both networks get, one-hot; 0: none.
      d_steps: updates of the discriminator in each step, on equal shares of the batch.
      discriminator_tx: the discriminator's optimizer; None: that of the generator.
      accumulate_steps: parts of each update's share of the batch; 1 with batch norm.
      standing_samples: generated images that the generator's batch statistics for evaluation are
        computed from; 0: the running averages of training.
      standing_seed: of these images.
      figures_seed: of the latents in `figures`.
    """

    image_shape: Shape
    latent_dim: int
    num_classes: int = 0
    d_steps: int = 1
    discriminator_tx: optax.GradientTransformation | None = None
    accumulate_steps: int = 1
    standing_samples: int = 0
    standing_seed: int = 0
    figures_seed: int = 0

    @property
    def sample_takes_labels(self) -> bool:
        return self.num_classes > 0

    @property
    def updates_per_step(self) -> tuple[tuple[str, int], ...]:
        return (("generator", 1), ("discriminator", self.d_steps))

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
        updates = Updates(self, tx, self.discriminator_tx or tx, self.accumulate_steps)
        shares["fake"], pullback, statistics = updates.generate_shares(
            params["generator"], statistics, shares
        )
        discriminator, (d_grads, metrics) = scan(
            lambda d, share: updates.update_discriminator(d, share, rngs),
            DiscriminatorState(params["discriminator"], opt_state["discriminator"], model_state),
            shares,
        )
        d_grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), (d_grads, metrics))
        last = jax.tree.map(lambda x: x[-1], shares)
        generator, g_grads, metrics["loss_generator"] = updates.update_generator(
            GeneratorState(params["generator"], opt_state["generator"]),
            discriminator,
            last,
            pullback,
            rngs,
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
        """Generates the images of `figures`, in [0, 1], by name."""

        def generate(z: Array, labels: np.ndarray) -> Array:
            return to_unit(self._images(params, model_state, z, self.one_hot(labels)))

        return interpolations(generate, self.latent_dim, self.num_classes, key)

    _interpolations_jit = functools.cached_property(lambda self: jax.jit(self.interpolations))

    def figures(self, params, model_state, batch):
        key = rng.stream(jax.random.key(self.figures_seed), "figures")
        images = self._interpolations_jit(params, model_state, key)
        return pictures(images, self.num_classes)


def to_unit(images: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps [-1, 1] to [0, 1] and clips what is outside."""
    return clip_to_unit((images + 1) / 2)
