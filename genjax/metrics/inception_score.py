"""Inception score (Salimans et al. 2016): exp of the mean KL(p(y | x) || p(y)), in splits."""

import dataclasses

import numpy as np

SPLITS = 10  # as published


@dataclasses.dataclass
class InceptionScore:
    """Takes log-probabilities of the images in order and keeps two sums a split.

    Image i of `total` belongs to split i * SPLITS // total.

    Attributes:
      total: number of images that will come.
      splits: number of parts that are scored by themselves.
    """

    total: int
    splits: int = SPLITS

    def __post_init__(self):
        self._seen = 0
        self._counts = np.zeros(self.splits)
        self._negentropy = np.zeros(self.splits)  # sum over x of sum_y p(y|x) log p(y|x)
        self._probs = None  # sum over x of p(y|x)

    def update(self, log_probs):
        """Takes the next images' log p(y | x), [N, K]."""
        log_probs = np.asarray(log_probs, np.float64)
        if self._probs is None:
            self._probs = np.zeros((self.splits, log_probs.shape[1]))
        split = (self._seen + np.arange(len(log_probs))) * self.splits // self.total
        self._seen += len(log_probs)
        probs = np.exp(log_probs)
        terms = np.where(probs > 0, probs * log_probs, 0.0).sum(axis=1)
        np.add.at(self._counts, split, 1)
        np.add.at(self._negentropy, split, terms)
        np.add.at(self._probs, split, probs)

    def result(self):
        """(mean, standard deviation) of the splits' scores, each in [1, K]."""
        marginal = self._probs / self._counts[:, None]
        entropy = -np.where(marginal > 0, marginal * np.log(np.maximum(marginal, 1e-300)), 0.0)
        scores = np.exp(self._negentropy / self._counts + entropy.sum(axis=1))
        return float(scores.mean()), float(scores.std())
