"""The losses of generator and discriminator as functions of parameters and images."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.gan.augmentation import Augmentation, NoAugmentation
from experiments.gan.penalties import Penalties
from genjax.objectives.adversarial import LOSSES
from genjax.rng import Rngs
from genjax.typing import Array, Float, Int, ModelState, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Losses:
    """The two networks and what they minimise.

    Attributes:
      generator: (z [B, D], y [B, K] or None, train) -> images [B, H, W, C] in [-1, 1].
      discriminator: (images, y) -> logits [B].
      adversarial_loss: a key of `genjax.objectives.adversarial.LOSSES`.
      label_smoothing: of the real images' labels, for the losses that have labels.
      penalties: terms that keep the discriminator smooth.
      augmentation: of the discriminator's inputs.
    """

    generator: nn.Module
    discriminator: nn.Module
    adversarial_loss: str = "non_saturating"
    label_smoothing: float = 0.0
    penalties: Penalties = Penalties()
    augmentation: Augmentation = NoAugmentation()

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
