"""Inception score (Salimans et al. 2016, section 4): sure of each image, unsure of all."""

import dataclasses

import numpy as np

from genjax.errors import UserError
from genjax.metrics.arrays import log_softmax


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """exp E_x KL(p(y | x) || p(y)) in each of `splits` parts of the images, summed up by batches.

    As published, the parts are cut out of the images in their order: part s of n images holds
    those from s n // splits to before (s + 1) n // splits. So n must be known from the start, and
    images sorted by class give too low a score. The network is the caller's; only on the Inception
    of 2015 is the number comparable with published ones.

    Attributes:
      num_images: n, all that will come.
      count: those that came.
      sum_probs: float64 [splits, k], the sum of p(y | x).
      sum_neg_entropy: float64 [splits], the sum of sum_y p(y | x) log p(y | x), in nats.
    """

    num_images: int
    count: int
    sum_probs: np.ndarray
    sum_neg_entropy: np.ndarray

    @classmethod
    def start(cls, num_images, num_classes, splits=10):
        if not 1 <= splits <= num_images:
            raise UserError(f"{num_images} images cannot be cut into {splits} splits")
        return cls(num_images, 0, np.zeros((splits, num_classes)), np.zeros(splits))

    @property
    def _ends(self):
        splits = len(self.sum_neg_entropy)
        return np.arange(1, splits + 1) * self.num_images // splits

    def update(self, logits):
        """With the next images' logits, or log-probabilities, [b, k]; returns new sums."""
        log_probs = log_softmax(logits)
        if log_probs.shape[1] != self.sum_probs.shape[1]:
            raise UserError(
                f"logits: {log_probs.shape[1]} classes, {self.sum_probs.shape[1]} were announced"
            )
        count = self.count + len(log_probs)
        if count > self.num_images:
            raise UserError(f"logits of {count} images, {self.num_images} were announced")
        split = np.searchsorted(self._ends, np.arange(self.count, count), side="right")
        probs = np.exp(log_probs)
        sum_probs, sum_neg_entropy = self.sum_probs.copy(), self.sum_neg_entropy.copy()
        np.add.at(sum_probs, split, probs)
        np.add.at(sum_neg_entropy, split, (probs * log_probs).sum(axis=1))
        return InceptionScore(self.num_images, count, sum_probs, sum_neg_entropy)

    def score(self):
        """(mean, standard deviation) over the splits; from 1, no information, to k."""
        if self.count != self.num_images:
            raise UserError(f"logits of {self.count} images, {self.num_images} were announced")
        sizes = np.diff(self._ends, prepend=0)
        p_y = self.sum_probs / sizes[:, None]
        # A class that no image has adds nothing: p log p -> 0.
        neg_entropy = (p_y * np.log(np.where(p_y > 0, p_y, 1))).sum(axis=1)
        scores = np.exp(self.sum_neg_entropy / sizes - neg_entropy)
        return float(scores.mean()), float(scores.std())
