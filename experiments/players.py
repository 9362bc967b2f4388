"""The two players of a GAN and what each of them minimises: pure functions.

  min over D of  E[loss_D(D(T(x)), D(T(G(z))))] + r1/2 E|grad D(T(x))|^2 + r2/2 E|grad D(T(G(z)))|^2
                 + gradient_penalty E(|grad D(u x + (1 - u) G(z))| - 1)^2 + lecam E[...]
  min over G of  E[loss_G(D(T(x)), D(T(G(z))))]

with T the augmentation, gradients with respect to x.
"""

import dataclasses

import jax
import jax.numpy as jnp

from genjax.objectives import ada, penalties
from genjax.objectives.adversarial import Loss
from genjax.objectives.diffaugment import POLICIES, diffaugment

# config.augment.name -> (images [B, H, W, C], keys [B], p, policy) -> images
AUGMENTATIONS = {
    "none": lambda images, keys, p, policy: images,
    "diffaugment": lambda images, keys, p, policy: diffaugment(images, keys, policy),
    "ada": ada.augment,
}
OPERATIONS = {"none": (), "diffaugment": tuple(POLICIES), "ada": ada.POLICIES}


@dataclasses.dataclass(frozen=True)
class Game:
    """Both players and what each minimises: pure functions.

    Attributes:
      generator, discriminator: linen modules, see `genjax.models.gan`.
      loss: a `Loss`.
      objective, augment: of a config.
    """

    generator: object
    discriminator: object
    loss: Loss
    objective: object
    augment: object

    def generate(self, params, stats, z, y, train=False):
        """(images of z [B, D] and one-hot labels y or None, batch statistics); {} if none."""
        variables = {"params": params, **stats}
        if not (train and stats):
            return self.generator.apply(variables, z, y, train), stats
        return self.generator.apply(variables, z, y, True, mutable=list(stats))

    def weights(self, params, own):
        """The discriminator's parameters as they are applied, and spectral vectors (or {})."""
        if not self.objective.spectral_norm:
            return params, {}
        return penalties.spectral_normalize(params, own["spectral"])

    def critic(self, weights, own, keys, y):
        """x -> D(T(x)); T by `keys` [B]."""
        p = own["ada"]["p"] if "ada" in own else None
        policy = tuple(self.augment.policy) or OPERATIONS[self.augment.name]
        augmented = AUGMENTATIONS[self.augment.name]

        def scored(x):
            return self.discriminator.apply({"params": weights}, augmented(x, keys, p, policy), y)

        return scored

    def discriminator_loss(self, params, own, real, fake, y, rngs, update):
        """(loss, (metrics, spectral vectors)) of one update.

        Args:
          params: the discriminator's.
          own: what the game's state holds beside batch statistics.
          real, fake: images [B, H, W, C]; nothing flows back to who made the latter.
          y: one-hot labels [B, K] of both, or None.
          rngs: keys.
          update: int32 scalar, number of the update, from 0.
        """
        objective = self.objective
        weights, vectors = self.weights(params, own)
        fake = jax.lax.stop_gradient(fake)
        keys = rngs("augment_real"), rngs("augment_fake")
        gammas = objective.r1, objective.r2
        lazy = objective.penalty_interval > 1

        def scored(x, keys, y, squares):
            critic = self.critic(weights, own, keys, y)
            if squares:
                return penalties.value_and_squared_gradient_norm(critic, x)
            return critic(x), jnp.zeros(len(x))

        def apart(squares):
            """Logits and squares of real images and of made ones, one pass each."""
            pairs = zip((real, fake), keys, squares)
            return zip(*[scored(x, k, y, wanted) for x, k, wanted in pairs])

        wanted = [gamma > 0 and not lazy for gamma in gammas]
        if wanted[0] == wanted[1]:  # one pass for both
            both = scored(pair(real, fake), pair(*keys), pair(y, y), wanted[0])
            (r, f), squares = map(unpair, both)
        else:
            (r, f), squares = apart(wanted)

        def penalty(squares):
            total = sum(0.5 * g * jnp.mean(s) for g, s in zip(gammas, squares))
            if objective.gradient_penalty:
                critic = self.critic(weights, own, keys[0], y)
                slopes = penalties.gradient_penalty(critic, real, fake, rngs("interpolate"))
                total += objective.gradient_penalty * jnp.mean(slopes)
            return total

        def now_and_then():
            _, squares = apart([gamma > 0 for gamma in gammas])
            return objective.penalty_interval * penalty(squares)

        metrics = {"real_logits": jnp.mean(r), "fake_logits": jnp.mean(f)}
        if "ada" in own:
            metrics["augment_r_t"] = jnp.mean(jnp.sign(r))
        loss = jnp.mean(self.loss.discriminator(r, f, objective.label_smoothing))
        metrics["loss_discriminator"] = loss
        if objective.lecam:
            lecam = objective.lecam * jnp.mean(penalties.lecam(r, f, own["lecam"]))
            loss += lecam
            metrics["lecam"] = lecam
        if any(gammas) or objective.gradient_penalty:
            smooth = (
                penalty(squares)
                if not lazy
                else jax.lax.cond(
                    update % objective.penalty_interval == 0, now_and_then, lambda: jnp.zeros(())
                )
            )
            loss += smooth
            metrics["penalty"] = smooth
        return loss, ({"loss": loss, **metrics}, vectors)

    def generator_loss(self, fake, params, own, real, y, rngs):
        """Of made images; `params` are the discriminator's, which do not move."""
        weights, _ = self.weights(jax.lax.stop_gradient(params), own)
        f = self.critic(weights, own, rngs("augment_generator"), y)(fake)
        r = jnp.zeros_like(f)
        if self.loss.relativistic:
            r = self.critic(weights, own, rngs("augment_generator_real"), y)(real)
        return jnp.mean(self.loss.generator(r, f))

    def after_update(self, own, metrics, vectors, batch_size):
        """What the game's state holds after an update of the discriminator."""
        new = dict(own)
        if "spectral" in own:
            new["spectral"] = vectors
        if "lecam" in own:
            means = metrics["real_logits"], metrics["fake_logits"]
            new["lecam"] = penalties.update_anchors(own["lecam"], *means)
        if "ada" in own and self.augment.target > 0:
            new["ada"] = ada.update_feedback(
                own["ada"],
                metrics["augment_r_t"],
                batch_size,
                target=self.augment.target,
                interval=self.augment.interval,
                speed_images=self.augment.speed_images,
            )
        return new


def pair(a, b):
    """[B, ...] twice -> [2B, ...] in turn, so that each device's share stays where it is."""
    return None if a is None else jnp.stack([a, b], 1).reshape(2 * len(a), *a.shape[1:])


def unpair(x):
    """The inverse: (a, b)."""
    return x[0::2], x[1::2]
