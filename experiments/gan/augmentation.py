"""Augmentation of the discriminator's inputs: none, DiffAugment, ADA."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from ml_collections import ConfigDict

from genjax.objectives import ada, diffaugment
from genjax.typing import Array, Float, Key


@runtime_checkable
class Augmentation(Protocol):
    """T, which is applied to every image, real or generated, before the discriminator.

    It is differentiable: the generator learns through it. Its state is an entry of the model state.
    """

    def init(self) -> Any:
        """Returns the initial state; None for an augmentation without any."""
        return None

    def __call__(
        self, images: Float[Array, "b h w c"], keys: Key[Array, " b"], state: Any
    ) -> Float[Array, "b h w c"]:
        """Augments images in [-1, 1], each with its own key."""
        ...

    def update(self, state: Any, mean_sign: Float[Array, ""], batch_size: int) -> Any:
        """Returns the state after an update of the discriminator.

        Args:
          state: before the update.
          mean_sign: mean over the real images of the sign of their logits.
          batch_size: number of real images, over all devices.
        """
        return state


@dataclasses.dataclass(frozen=True)
class NoAugmentation(Augmentation):
    """The identity."""

    def __call__(self, images, keys, state):
        return images


@dataclasses.dataclass(frozen=True)
class DiffAugment(Augmentation):
    """Every operation on every image (Zhao et al. 2020).

    Attributes:
      policy: groups of operations, names in `genjax.objectives.diffaugment.POLICIES`.
    """

    policy: tuple[str, ...] = tuple(diffaugment.POLICIES)

    def __call__(self, images, keys, state):
        return diffaugment.diffaugment(images, keys, self.policy)


@dataclasses.dataclass(frozen=True)
class Ada(Augmentation):
    """Every operation with probability p, which follows the discriminator (Karras et al. 2020).

    Attributes:
      policy: groups of operations, names in `genjax.objectives.ada.POLICIES`.
      p: the initial probability.
      target: of the mean sign of real logits, which p is adapted to; 0: p stays as it is.
      interval: updates of the discriminator between changes of p.
      speed_images: real images in which p could go from 0 to 1.
    """

    policy: tuple[str, ...] = ada.POLICIES
    p: float = 0.0
    target: float = 0.6
    interval: int = 4
    speed_images: int = 500_000

    def init(self):
        return ada.init_feedback(self.p)

    def __call__(self, images, keys, state):
        return ada.augment(images, keys, state["p"], self.policy)

    def update(self, state, mean_sign, batch_size):
        if self.target == 0:
            return state
        return ada.update_feedback(
            state,
            mean_sign,
            batch_size,
            target=self.target,
            interval=self.interval,
            speed_images=self.speed_images,
        )


# config.augment.name -> the names that config.augment.policy may have
POLICIES = {
    "none": (),
    "diffaugment": tuple(diffaugment.POLICIES),
    "ada": ada.POLICIES,
}


def make_augmentation(augment: ConfigDict) -> Augmentation:
    """Returns the augmentation of `config.augment`."""
    policy = tuple(augment.policy) or POLICIES[augment.name]
    if augment.name == "ada":
        return Ada(policy, augment.p, augment.target, augment.interval, augment.speed_images)
    return DiffAugment(policy) if augment.name == "diffaugment" else NoAugmentation()
