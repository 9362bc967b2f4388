"""Statistics of a set of images under one feature net, and the metrics of two such sets."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from genjax.errors import UserError
from genjax.metrics import frechet, kernel, manifold, modes
from genjax.metrics.inception_score import InceptionScore
from genjax.typing import AnyArray, Float, Int, Shape

# Metrics that compare every image with every other use at most this many features.
MAX_KEPT = 10_000


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
      features: float32, of the first images; n may be 0.
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
    splits = min(10, num_images)
    score = InceptionScore.start(num_images, num_classes, splits) if num_classes else None
    counts = np.zeros(num_modes, np.int64) if num_modes else None
    moments, kept, count = None, [], 0
    for batch in batches:
        features = batch["features"]
        moments = frechet.Moments.of(features) if moments is None else moments.update(features)
        if count < keep:
            kept.append(np.asarray(features[: keep - count], np.float32))
        if score is not None:
            score = score.update(batch["logits"])
        if counts is not None:
            labels = np.argmax(batch["logits"], axis=-1)
            labels = modes.stacked_labels(labels) if labels.ndim == 2 else labels
            counts = counts + modes.mode_counts(labels, num_modes)
        count += len(features)
    if count != num_images:
        raise UserError(f"expected {num_images} images, got {count}")
    features = np.concatenate(kept) if kept else np.zeros((0, len(moments.mean)), np.float32)
    return ImageSet(protocol, moments, features, score, counts)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A comparison of two sets.

    Attributes:
      names: of its values.
      fn: (real, generated) -> one float for each name.
      pairwise: whether `fn` takes the kept features [m, d], [n, d]; otherwise it takes `ImageSet`s.
    """

    names: tuple[str, ...]
    fn: Callable
    pairwise: bool = False


def _frechet(real: ImageSet, generated: ImageSet) -> tuple[float]:
    return (frechet.frechet_distance(real.moments, generated.moments),)


def _score(real: ImageSet, generated: ImageSet) -> tuple[float, float]:
    return generated.score.score()


def _modes(real: ImageSet, generated: ImageSet) -> tuple[int, float]:
    counts = generated.mode_counts
    return modes.modes_reached(counts), modes.reverse_kl(counts)


# By their names in config.eval.metrics.
METRICS = {
    "fd": Metric(("fd",), _frechet),
    "kd": Metric(("kd", "kd_standard_error"), kernel.kernel_distance, pairwise=True),
    "pr": Metric(("precision", "recall"), manifold.precision_recall, pairwise=True),
    "dc": Metric(("density", "coverage"), manifold.density_coverage, pairwise=True),
    "is": Metric(("is", "is_standard_deviation"), _score),
    "modes": Metric(("modes", "modes_kl"), _modes),
}

# Their usual names, reserved for the net and the weights that define them.
_PUBLISHED = {"fd": "fid", "kd": "kid", "kd_standard_error": "kid_standard_error"}


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
    real: ImageSet, generated: ImageSet, metrics: Iterable[str], published: bool = False
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
    out = {}
    for name in metrics:
        metric = METRICS[name]
        sets = (real, generated)
        if metric.pairwise:
            sets = [images.features[:count] for images in sets]
        counts = generated.moments.count, real.moments.count
        names = names_of(name, real.protocol.net, published, *counts)
        out.update(zip(names, metric.fn(*sets), strict=True))
    return out
