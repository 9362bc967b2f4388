"""Statistics of a set of images under one feature net, and the metrics of two such sets."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from genjax.errors import UserError
from genjax.metrics import frechet, kernel, manifold, modes
from genjax.metrics.arrays import check_features, sample_order
from genjax.metrics.inception_score import InceptionScore
from genjax.metrics.pairs import Comparison, visit_pairs
from genjax.typing import AnyArray, Float, Int, Shape

# Metrics that compare every image with every other use at most this many features.
MAX_KEPT = 10_000

_KID_SEED = 0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How features were computed; only sets with the same protocol can be compared.

    Attributes:
      net, net_sha256: the feature net.
      resize: how images were resized for it.
      image_shape: (H, W, C) of the images, uint8, before that.
    """

    net: str
    net_sha256: str
    resize: str
    image_shape: Shape


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Statistics of a set of images.

    Attributes:
      protocol: how the features were computed.
      moments: of the features of all images.
      features: float32, of the images `sample_order(number of images)[:n]`, in that order, so
        that those of fewer images are again a random sample; n may be 0.
      score: the sums of the inception score, or None.
      mode_counts: the number of images of each mode, or None.
    """

    protocol: Protocol
    moments: frechet.Moments
    features: Float[np.ndarray, "n d"]
    score: InceptionScore | None = None
    mode_counts: Int[np.ndarray, " modes"] | None = None


def summarize(
    batches: Iterable[Mapping[str, AnyArray]],
    protocol: Protocol,
    num_images: int,
    *,
    keep: int = 0,
    num_classes: int = 0,
    num_modes: int = 0,
) -> ImageSet:
    """Computes the statistics of a set of images in one pass.

    Args:
      batches: of {"features": [B, d], "logits": [B, K] or [B, C, K]}, `num_images` in all.
      protocol: how the features were computed.
      num_images: the number of images in all batches.
      keep: the number of images whose features are kept.
      num_classes: K, for the inception score; 0 for none.
      num_modes: for the count of modes; 0 for none. Logits [B, 3, 10] spell one of 1000 modes.

    Raises:
      UserError: there is another number of images.
    """
    position, splits, score = np.argsort(sample_order(num_images)), min(10, num_images), None
    if num_classes:
        score = InceptionScore.start(num_images, num_classes, splits, position)
    counts = np.zeros(num_modes, np.int64) if num_modes else None
    moments, kept, count = None, None, 0
    for batch in batches:
        features = batch["features"]
        if count + len(features) > num_images:
            raise UserError(f"expected {num_images} images, got {count + len(features)} or more")
        moments = frechet.Moments.of(features) if moments is None else moments.update(features)
        if kept is None:
            kept = np.empty((min(keep, num_images), features.shape[1]), np.float32)
        places = position[count : count + len(features)]
        kept[places[places < keep]] = features[places < keep]
        if score is not None:
            score = score.update(batch["logits"])
        if counts is not None:
            labels = np.argmax(batch["logits"], axis=-1)
            labels = modes.stacked_labels(labels) if labels.ndim == 2 else labels
            counts = counts + modes.mode_counts(labels, num_modes)
        count += len(features)
    if count != num_images:
        raise UserError(f"expected {num_images} images, got {count}")
    return ImageSet(protocol, moments, kept, score, counts)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A comparison of two sets, by exactly one of the three ways.

    Attributes:
      names: of its values.
      of_sets: (real, generated), each an `ImageSet`, -> one number for each name.
      of_features: the same of the kept features [m, d], [n, d].
      of_pairs: (m, n) -> a `Comparison` of the kept features with `values() -> numbers`; all of
        these look at the pairs together.
      at_least: the smallest number of images on either side.
    """

    names: tuple[str, ...]
    of_sets: Callable[[ImageSet, ImageSet], tuple[float | int, ...]] | None = None
    of_features: Callable[[np.ndarray, np.ndarray], tuple[float, ...]] | None = None
    of_pairs: Callable[[int, int], Comparison] | None = None
    at_least: int = 2

    @property
    def pairwise(self) -> bool:
        """Whether it compares kept features, which are of at most `MAX_KEPT` images."""
        return self.of_sets is None


def _frechet(real: ImageSet, generated: ImageSet) -> tuple[float]:
    return (frechet.frechet_distance(real.moments, generated.moments),)


def _score(real: ImageSet, generated: ImageSet) -> tuple[float, float]:
    return generated.score.score()


def _modes(real: ImageSet, generated: ImageSet) -> tuple[int, float]:
    counts = generated.mode_counts
    return modes.modes_reached(counts), modes.reverse_kl(counts)


def _kid(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    return kernel.kid(real, generated, rng=np.random.default_rng(_KID_SEED))


def _of_pairs(comparison: Any, *names: str) -> Metric:
    return Metric(names, of_pairs=comparison, at_least=comparison.at_least)


# By their names in config.eval.metrics.
METRICS = {
    "fd": Metric(("fd",), of_sets=_frechet),
    "kd": _of_pairs(kernel.KernelDistance, "kd", "kd_standard_error"),
    "kid": Metric(
        ("kd_subsets", "kd_subsets_standard_deviation"),
        of_features=_kid,
        at_least=kernel.KID_SUBSET_SIZE,
    ),
    "pr": _of_pairs(manifold.PrecisionRecall, "precision", "recall"),
    "dc": _of_pairs(manifold.DensityCoverage, "density", "coverage"),
    "is": Metric(("is", "is_standard_deviation"), of_sets=_score),
    "modes": Metric(("modes", "modes_kl"), of_sets=_modes),
}

# Their usual names, reserved for the net and the weights that define them.
_PUBLISHED = {
    "fd": "fid",
    "kd_subsets": "kid",
    "kd_subsets_standard_deviation": "kid_standard_deviation",
}


def count_name(count: int) -> str:
    """Abbreviates a number of images: 10000 -> "10k", 2500 -> "2500"."""
    return f"{count // 1000}k" if count % 1000 == 0 and count else str(count)


def names_of(
    metric: str, net: str, published: bool, num_generated: int, num_real: int
) -> list[str]:
    """Returns the full names of a metric's values, with the net and the number of images.

    Args:
      metric: a name in `METRICS`.
      net: the name of the feature net.
      published: whether the net is the one that FID, KID and IS are defined by.
      num_generated, num_real: how many images are compared.
    """
    short = METRICS[metric].names
    if published:
        short = [_PUBLISHED.get(name, name) for name in short]
    if METRICS[metric].pairwise:
        num_generated = min(num_generated, num_real, MAX_KEPT)
    return [f"{name}_{net}_{count_name(num_generated)}" for name in short]


def compare(
    real: ImageSet, generated: ImageSet, metrics: Collection[str], published: bool = False
) -> dict[str, float | int]:
    """Computes the metrics of two sets.

    A pairwise metric takes as many real images as generated ones.

    Args:
      real, generated: the sets.
      metrics: names in `METRICS`.
      published: whether the net is the one that FID, KID and IS are defined by.

    Returns:
      {"fd_<net>_<n>": value, ...}; where `published` is True, names such as "fid_inception_50k".

    Raises:
      UserError: their protocols differ, or a set is too small for a metric.
    """
    if real.protocol != generated.protocol:
        there, here = dataclasses.asdict(real.protocol), dataclasses.asdict(generated.protocol)
        differ = "; ".join(f"{k}: {there[k]}, {here[k]}" for k in there if there[k] != here[k])
        raise UserError(f"features of different protocols cannot be compared ({differ})")
    count = min(len(real.features), len(generated.features))
    features = [images.features[:count] for images in (real, generated)]
    comparisons = {m: METRICS[m].of_pairs(count, count) for m in metrics if METRICS[m].of_pairs}
    if comparisons:
        for images, which in zip(features, ("real", "generated"), strict=True):
            least = max(METRICS[m].at_least for m in comparisons)
            check_features(images, f"{which} features", least)
        visit_pairs(*features, list(comparisons.values()))
    out = {}
    for name in metrics:
        metric = METRICS[name]
        if metric.of_pairs:
            values = comparisons[name].values()
        elif metric.of_features:
            values = metric.of_features(*features)
        else:
            values = metric.of_sets(real, generated)
        counts = generated.moments.count, real.moments.count
        names = names_of(name, real.protocol.net, published, *counts)
        out.update(zip(names, values, strict=True))
    return out
