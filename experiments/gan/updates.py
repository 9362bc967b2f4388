"""Updates of the discriminator and of the generator, which make up a training step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.gan.losses import Losses
from genjax.devices import gathered, mean_over_devices, scan, sum_over_devices
from genjax.rng import Rngs
from genjax.train.step import split_batch
from genjax.typing import Array, Float, ModelState, Params


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


@dataclasses.dataclass(frozen=True)
class Updates:
    """The updates of a step.

    Attributes:
      losses: of both networks.
      generator_tx: the generator's optimizer.
      discriminator_tx: the discriminator's.
      parts: each update works through its share of the batch in this many parts, to save memory,
        and averages their gradients; all losses are means over examples, or pairs of them.
    """

    losses: Losses
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    parts: int = 1

    def generate_shares(
        self, params: Params, statistics: ModelState, shares: dict[str, Array]
    ) -> tuple[Array, Callable[[Array], tuple[Params]] | None, ModelState]:
        """Generates the images of all shares: the generator is constant until its own update.

        Returns:
          images [d_steps, B / d_steps, H, W, C]; (gradient with respect to the images of the last
          share) -> (gradient with respect to the parameters,), None where updates have parts;
          batch statistics of that share.
        """
        first = jax.tree.map(lambda x: x[:-1], shares)
        last = jax.tree.map(lambda x: x[-1], shares)

        def images_of(params, share):
            return self.losses.generate(params, statistics, share["z"], share.get("y"), train=True)

        if self.parts > 1:  # what a gradient needs of all images is not kept
            whole = gathered(params)
            _, images = scan(lambda _, share: (None, images_of(whole, share)[0]), None, shares)
            return images, None, statistics
        images, pullback, statistics = jax.vjp(
            lambda params: images_of(gathered(params), last), params, has_aux=True
        )
        images = images[None]
        if len(shares["z"]) > 1:
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
    ) -> tuple[DiscriminatorState, tuple[Params, dict[str, Array]]]:
        """Updates the discriminator once.

        Args:
          state: before the update.
          share: "real" and "fake" images [B, H, W, C], labels "y" [B, K] if any, "slot" int32 [B],
            and "update", the number of the update.
          rngs: of the step.

        Returns:
          the state after the update, (gradient, scalar metrics).
        """
        share = dict(share)
        update = share.pop("update")
        loss_of = lambda params, *args: self.losses.discriminator_loss(gathered(params), *args)

        def gradients(part):
            (_, (metrics, vectors)), grads = jax.value_and_grad(loss_of, has_aux=True)(
                state.params,
                state.model_state,
                part["real"],
                part["fake"],
                part.get("y"),
                dataclasses.replace(rngs, index=part["slot"]),
                update,
            )
            return grads, metrics, vectors

        grads, metrics, vectors = self._mean_over_parts(gradients, share)
        grads, metrics = mean_over_devices((grads, metrics))
        updates, opt_state = self.discriminator_tx.update(grads, state.opt_state, state.params)
        model_state = self.losses.penalties.update(state.model_state, metrics, vectors)
        if "ada" in model_state:
            batch_size = sum_over_devices(len(share["real"]))
            model_state["ada"] = self.losses.augmentation.update(
                model_state["ada"], metrics["augment_r_t"], batch_size
            )
        params = optax.apply_updates(state.params, updates)
        return DiscriminatorState(params, opt_state, model_state), (grads, metrics)

    def update_generator(
        self,
        state: GeneratorState,
        discriminator: DiscriminatorState,
        share: dict[str, Array],
        pullback: Callable[[Array], tuple[Params]] | None,
        rngs: Rngs,
    ) -> tuple[GeneratorState, Params, Float[Array, ""]]:
        """Updates the generator once.

        Args:
          state: before the update.
          discriminator: after its updates.
          share: as in `update_discriminator`.
          pullback: (gradient with respect to "fake") -> (gradient with respect to the parameters,).
          rngs: of the step.

        Returns:
          the state after the update, gradient, loss.
        """
        weights = gathered(discriminator.params)

        def loss_of(fake, part):
            own = dataclasses.replace(rngs, index=part["slot"])
            inputs = weights, discriminator.model_state, part["real"], part.get("y"), own
            return self.losses.generator_loss(fake, *inputs)

        def loss_of_params(params, part):
            fake, _ = self.losses.generate(gathered(params), {}, part["z"], part.get("y"))
            return loss_of(fake, part)

        if self.parts == 1:
            loss, image_grads = jax.value_and_grad(loss_of)(share["fake"], share)
            grads = pullback(image_grads)[0]
        else:
            share = {name: x for name, x in share.items() if name != "update"}
            gradients = lambda part: jax.value_and_grad(loss_of_params)(state.params, part)
            loss, grads = self._mean_over_parts(gradients, share)
        grads, loss = mean_over_devices((grads, loss))
        updates, opt_state = self.generator_tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return GeneratorState(params, opt_state), grads, loss

    def _mean_over_parts(self, fn: Callable[[dict[str, Array]], Any], share: dict[str, Array]):
        """Returns fn(share), or the mean of it over the parts of a share."""
        if self.parts == 1:
            return fn(share)
        parts = split_batch(share, self.parts)
        _, stacked = scan(lambda _, part: (None, fn(part)), None, parts)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
