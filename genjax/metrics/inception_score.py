"""Inception score (Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4).

High where a classifier is certain of each image, and its classes are even over all of them.
"""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import ArrayLike, log_softmax
from genjax.typing import Float, Int


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """exp E_x KL(p(y | x) || p(y)) in each of `splits` parts of the images, batch by batch.

    Part s of n images has those at the positions s n // splits to before (s + 1) n // splits of an
    order, so n must be known from the start. As published the images stay in their own order; of
    images sorted by class a part then has few classes, and the score is too low. Only with the
    logits of the Inception of 2015 can the score be compared with published ones.

    Attributes:
      num_images: n, the number of all images.
      position: of each image in the order.
      count: the number of images so far.
      sum_probs: float64, the sum of p(y | x).
      sum_neg_entropy: float64, the sum of sum_y p(y | x) log p(y | x), in nats.
    """

    num_images: int
    position: Int[np.ndarray, " n"]
    count: int
    sum_probs: Float[np.ndarray, "splits k"]
    sum_neg_entropy: Float[np.ndarray, " splits"]

    @classmethod
    def start(
        cls,
        num_images: int,
        num_classes: int,
        splits: int = 10,
        position: Int[np.ndarray, " n"] | None = None,
    ) -> "InceptionScore":
        """Returns the sums before the first batch.

        Args:
          num_images: n.
          num_classes: k.
          splits: their number.
          position: of each image in the order that is cut into parts; by default its number.

        Raises:
          UserError: there are fewer images than splits.
        """
        if not 1 <= splits <= num_images:
            raise UserError(f"{num_images} images cannot be cut into {splits} splits")
        position = np.arange(num_images) if position is None else position
        return cls(num_images, position, 0, np.zeros((splits, num_classes)), np.zeros(splits))

    @property
    def _ends(self) -> Int[np.ndarray, " splits"]:
        splits = len(self.sum_neg_entropy)
        return np.arange(1, splits + 1) * self.num_images // splits

    def update(self, logits: ArrayLike) -> "InceptionScore":
        """Adds the logits, or log-probabilities, [b, k] of the next images; returns new sums.

        Raises:
          UserError: there are more images, or other classes, than `start` was called with.
        """
        log_probs = log_softmax(logits)
        if log_probs.shape[1] != self.sum_probs.shape[1]:
            raise UserError(
                f"logits: expected {self.sum_probs.shape[1]} classes, got {log_probs.shape[1]}"
            )
        count = self.count + len(log_probs)
        if count > self.num_images:
            raise UserError(f"logits: expected {self.num_images} images, got {count}")
        split = np.searchsorted(self._ends, self.position[self.count : count], side="right")
        probs = np.exp(log_probs)
        sum_probs, sum_neg_entropy = self.sum_probs.copy(), self.sum_neg_entropy.copy()
        np.add.at(sum_probs, split, probs)
        np.add.at(sum_neg_entropy, split, (probs * log_probs).sum(axis=1))
        return dataclasses.replace(
            self, count=count, sum_probs=sum_probs, sum_neg_entropy=sum_neg_entropy
        )

    def score(self) -> tuple[float, float]:
        """Computes (mean, standard deviation) over the splits; from 1, no information, to k.

        Raises:
          UserError: images are missing.
        """
        if self.count != self.num_images:
            raise UserError(f"logits: expected {self.num_images} images, got {self.count}")
        sizes = np.diff(self._ends, prepend=0)
        p_y = self.sum_probs / sizes[:, None]
        # A class that no image has adds nothing: p log p -> 0.
        neg_entropy = (p_y * np.log(np.where(p_y > 0, p_y, 1))).sum(axis=1)
        scores = np.exp(self.sum_neg_entropy / sizes - neg_entropy)
        return float(scores.mean()), float(scores.std())
