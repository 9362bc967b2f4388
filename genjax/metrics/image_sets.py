"""What is kept of a set of images that one feature net has seen, and the numbers of two sets."""

import dataclasses
from collections.abc import Callable

import numpy as np

from genjax.errors import UserError
from genjax.metrics import frechet, kernel, manifold, modes
from genjax.metrics.inception_score import InceptionScore

# Metrics that compare every image with every other keep no more features than this.
MAX_KEPT = 10_000


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How features came about; only sets of one protocol can be compared.

    Attributes:
      net, net_sha256: the feature net.
      resize: how images got to its size.
      image_shape: (H, W, C) of the images, uint8, before that.
    """

    net: str
    net_sha256: str
    resize: str
    image_shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Statistics of a set of images.

    Attributes:
      protocol: see `Protocol`.
      moments: of the features of all images.
      features: float32 [n, d] of the first images, or [0, d].
      score: `InceptionScore` of all images, or None.
      mode_counts: int64 [number of modes], images of each, or None.
    """

    protocol: Protocol
    moments: frechet.Moments
    features: np.ndarray
    score: InceptionScore | None = None
    mode_counts: np.ndarray | None = None


def summarize(batches, protocol, num_images, *, keep=0, num_classes=0, num_modes=0):
    """The `ImageSet` of so many images, in one pass that keeps no more than it is asked to.

    Args:
      batches: of {"features": [B, d], "logits": [B, K] or [B, C, K]}, `num_images` in all.
      protocol: see `Protocol`.
      num_images: how many will come.
      keep: of how many of them features are kept.
      num_classes: K, for the inception score; 0: none.
      num_modes: for their count; 0: none. Logits [B, 3, 10] spell one of 1000.
    """
    splits = min(10, num_images)
    score = InceptionScore.start(num_images, num_classes, splits) if num_classes else None
    counts = np.zeros(num_modes, np.int64) if num_modes else None
    moments, kept, seen = None, [], 0
    for batch in batches:
        features = batch["features"]
        moments = frechet.Moments.of(features) if moments is None else moments.update(features)
        if seen < keep:
            kept.append(np.asarray(features[: keep - seen], np.float32))
        if score is not None:
            score = score.update(batch["logits"])
        if counts is not None:
            labels = np.argmax(batch["logits"], axis=-1)
            labels = modes.stacked_labels(labels) if labels.ndim == 2 else labels
            counts = counts + modes.mode_counts(labels, num_modes)
        seen += len(features)
    if seen != num_images:
        raise UserError(f"{num_images} images were announced, {seen} came")
    features = np.concatenate(kept) if kept else np.zeros((0, len(moments.mean)), np.float32)
    return ImageSet(protocol, moments, features, score, counts)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One comparison of two sets.

    Attributes:
      names: of its numbers.
      fn: (real, generated) -> as many floats.
      pairwise: whether it takes the kept features [m, d], [n, d], and not whole `ImageSet`s.
    """

    names: tuple[str, ...]
    fn: Callable
    pairwise: bool = False


def _frechet(real, generated):
    return (frechet.frechet_distance(real.moments, generated.moments),)


def _score(real, generated):
    return generated.score.score()


def _modes(real, generated):
    counts = generated.mode_counts
    return modes.modes_reached(counts), modes.reverse_kl(counts)


# By the name that config.eval.metrics knows.
METRICS = {
    "fd": Metric(("fd",), _frechet),
    "kd": Metric(("kd", "kd_standard_error"), kernel.kernel_distance, pairwise=True),
    "pr": Metric(("precision", "recall"), manifold.precision_recall, pairwise=True),
    "dc": Metric(("density", "coverage"), manifold.density_coverage, pairwise=True),
    "is": Metric(("is", "is_standard_deviation"), _score),
    "modes": Metric(("modes", "modes_kl"), _modes),
}

# What the world calls them on the one net, with the one set of weights, that defines them.
_PUBLISHED = {"fd": "fid", "kd": "kid", "kd_standard_error": "kid_standard_error"}


def count_name(count):
    """10000 -> "10k", 2500 -> "2500"."""
    return f"{count // 1000}k" if count % 1000 == 0 and count else str(count)


def names_of(metric, net, published, num_generated, num_real):
    """The full names of a metric's numbers: what, which net, how many generated images."""
    short = METRICS[metric].names
    if published:
        short = [_PUBLISHED.get(name, name) for name in short]
    if METRICS[metric].pairwise:
        num_generated = min(num_generated, num_real, MAX_KEPT)
    return [f"{name}_{net}_{count_name(num_generated)}" for name in short]


def compare(real, generated, metrics, published=False):
    """The numbers of two sets.

    A pairwise metric takes as many real images as generated ones: it compares two samples.

    Args:
      real, generated: `ImageSet`.
      metrics: names in `METRICS`.
      published: whether the net is the one that FID, KID and IS are defined by.

    Returns:
      {"fd_<net>_<n>": float, ...}, or "fid_inception_50k" and the like where `published`.

    Raises:
      UserError: their protocols differ, or a set is too small for a metric.
    """
    if real.protocol != generated.protocol:
        there, here = dataclasses.asdict(real.protocol), dataclasses.asdict(generated.protocol)
        differ = "; ".join(f"{k}: {there[k]}, {here[k]}" for k in there if there[k] != here[k])
        raise UserError(f"features of unlike protocols cannot be compared ({differ})")
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
