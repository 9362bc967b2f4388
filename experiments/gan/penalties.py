"""Terms of the discriminator's loss that keep it smooth.

  r1/2 E|grad_x D(T(x))|^2 + r2/2 E|grad_x D(T(G(z)))|^2
  + gradient_penalty E(|grad_x D(T(u x + (1 - u) G(z)))| - 1)^2
  + lecam E[(D(T(x)) - a_fake)^2 + (D(T(G(z))) - a_real)^2],

with T the augmentation, gradients with respect to images before it, u uniform in [0, 1) and a the
moving averages of the logits.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.objectives import penalties
from genjax.rng import Rngs
from genjax.typing import Array, Float, Int, Key, Params

# (images [B, H, W, C], keys [B], one-hot labels [B, K] or None) -> logits D(T(x)) [B]
Critic = Callable[[Array, Array, Array | None], Array]

# Of the real images, of the generated images.
Pair = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Penalties:
    """Weights of the terms; a weight of 0 leaves its term out.

    Attributes:
      r1: gamma of R1, on real images (Mescheder et al. 2018, equation 9).
      r2: gamma of R2, on generated images (equation 10).
      gradient_penalty: lambda of WGAN-GP, on images in between (Gulrajani et al. 2017).
      interval: these three are computed in every k-th update, k times as large.
      lecam: weight of LeCam (Tseng et al. 2021).
      spectral_norm: divide every kernel by its largest singular value (Miyato et al. 2018).
    """

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0
    interval: int = 1
    lecam: float = 0.0
    spectral_norm: bool = False

    # ---- What is carried from one update to the next ----

    def init(self, params: Params, key: Key[Array, ""]) -> dict[str, Params]:
        """Initialises power iteration and LeCam's averages, where these terms are present."""
        state = {}
        if self.spectral_norm:
            state["spectral"] = penalties.spectral_vectors(params, key)
        if self.lecam:
            state["lecam"] = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        return state

    def update(
        self, state: dict[str, Params], metrics: dict[str, Array], vectors: Params
    ) -> dict[str, Params]:
        """Returns the state after an update of the discriminator.

        Args:
          state: before the update.
          metrics: the mean "real_logits" and "fake_logits" of the update, over all devices.
          vectors: of `normalize`.
        """
        state = dict(state)
        if self.spectral_norm:
            state["spectral"] = vectors
        if self.lecam:
            means = metrics["real_logits"], metrics["fake_logits"]
            state["lecam"] = penalties.update_anchors(state["lecam"], *means)
        return state

    def normalize(self, params: Params, state: dict[str, Params]) -> tuple[Params, Params]:
        """Returns the parameters as they are applied, and the vectors of power iteration or {}."""
        if not self.spectral_norm:
            return params, {}
        return penalties.spectral_normalize(params, state["spectral"])

    # ---- Terms ----

    def lecam_term(
        self, r: Float[Array, " b"], f: Float[Array, " b"], state: dict[str, Params]
    ) -> Float[Array, ""]:
        """Computes the LeCam term from the logits of real and of generated images."""
        return self.lecam * jnp.mean(penalties.lecam(r, f, state["lecam"]))

    def logits_and_penalty(
        self,
        critic: Critic,
        real: Float[Array, "b h w c"],
        fake: Float[Array, "b h w c"],
        y: Float[Array, "b k"] | None,
        rngs: Rngs,
        update: Int[Array, ""] | int,
    ) -> tuple[Pair, Float[Array, ""] | None]:
        """Computes logits and the penalty on gradients, which share a pass where they can.

        Args:
          critic: the discriminator after augmentation.
          real, fake: images.
          y: labels of both.
          rngs: keys of augmentation and interpolation.
          update: number of the update, from 0.

        Returns:
          (logits of real images [B], logits of generated images [B]), and the penalty, which is
          None where all its weights are 0.
        """
        images, keys = (real, fake), (rngs("augment_real"), rngs("augment_fake"))
        regularized = self.r1 > 0, self.r2 > 0
        lazy = self.interval > 1

        def penalty(squares: Pair) -> Array:
            total = 0.5 * self.r1 * jnp.mean(squares[0]) + 0.5 * self.r2 * jnp.mean(squares[1])
            if self.gradient_penalty:
                score = lambda x: critic(x, keys[0], y)
                slopes = penalties.gradient_penalty(score, real, fake, rngs("interpolate"))
                total += self.gradient_penalty * jnp.mean(slopes)
            return total

        def lazy_penalty() -> Array:
            _, squares = _score_separately(critic, images, keys, y, regularized)
            return self.interval * penalty(squares)

        now = (False, False) if lazy else regularized
        score_both = _score_together if now[0] == now[1] else _score_separately
        logits, squares = score_both(critic, images, keys, y, now)
        if not (any(regularized) or self.gradient_penalty):
            return logits, None
        if not lazy:
            return logits, penalty(squares)
        due = update % self.interval == 0
        return logits, jax.lax.cond(due, lazy_penalty, lambda: jnp.zeros(()))


def _score(
    critic: Critic, x: Array, keys: Array, y: Array | None, with_squares: bool
) -> tuple[Array, Array]:
    """Returns logits [B] and squared gradient norms [B]; the latter are 0 unless requested."""
    score = lambda x: critic(x, keys, y)
    if with_squares:
        return penalties.value_and_squared_gradient_norm(score, x)
    return score(x), jnp.zeros(len(x))


def _score_separately(
    critic: Critic, images: Pair, keys: Pair, y: Array | None, with_squares: tuple[bool, bool]
) -> tuple[Pair, Pair]:
    """Scores real and generated images; returns logits and squared gradient norms of both."""
    real, fake = (_score(critic, x, k, y, w) for x, k, w in zip(images, keys, with_squares))
    return (real[0], fake[0]), (real[1], fake[1])


def _score_together(
    critic: Critic, images: Pair, keys: Pair, y: Array | None, with_squares: tuple[bool, bool]
) -> tuple[Pair, Pair]:
    """Does the same in one pass, for two equal elements of `with_squares`."""
    y = None if y is None else _interleave(y, y)
    scores = _score(critic, _interleave(*images), _interleave(*keys), y, with_squares[0])
    logits, squares = ((x[0::2], x[1::2]) for x in scores)
    return logits, squares


def _interleave(a: Array, b: Array) -> Array:
    """Joins [B, ...] and [B, ...] to [2B, ...], alternating: no image leaves its device."""
    return jnp.stack([a, b], 1).reshape(2 * len(a), *a.shape[1:])
