"""Compares generated images with a dataset: distances, precision and recall, copies."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from genjax import plots
from genjax.data.cache import cached, verified
from genjax.data.dataset import eval_batches
from genjax.data.images import RESIZE_FILTER
from genjax.data.sources import cache_root
from genjax.errors import UserError
from genjax.metrics.arrays import sample_order
from genjax.metrics.frechet import Moments
from genjax.metrics.image_sets import (
    MAX_KEPT,
    METRICS,
    ImageSet,
    Protocol,
    compare,
    count_name,
    names_of,
    summarize,
)
from genjax.metrics.neighbours import nearest_neighbours, share_of_copies
from genjax.metrics.nets import OF_DATASET, PINNED, FeatureNet, load_net
from genjax.runner.fields import choose, require
from genjax.runner.terminal import unless_it_fails
from genjax.train.parallel import Parallel, agreed, main_first

# A metric in addition to `METRICS`: the share of near copies of training images, by pixels.
COPIES = "copies"

# What evaluations before the last one compute.
IN_LOOP = ("fd",)

# Generated images, a random sample, that are compared with the training set, and shown.
NUM_COPIES = 1_000
NUM_PANEL = 10
NUM_NEIGHBOURS = 4

_CACHE_FORMAT = 2  # 1: the features of the first images
_ARRAYS = ("mean", "scatter", "features")  # the files of a cached reference


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares images with a reference split, through a feature net.

    Attributes:
      config: `config.eval` of a run.
      parallel: the devices.
      net: the `FeatureNet`.
      train_data, eval_data: the two splits; `config.eval.reference` says which of them images are
        compared with. Copies are those of training images.
      image_shape: (H, W, C).
    """

    config: object
    parallel: Parallel
    net: FeatureNet
    train_data: Any
    eval_data: Any
    image_shape: tuple[int, int, int]

    @classmethod
    def create(
        cls, config: ConfigDict, parallel: Parallel, train_data: Any, eval_data: Any
    ) -> "Judge":
        """Checks config.eval and reads the feature net.

        The data may be sources, not decoded yet, to be replaced before images are judged.
        """
        options = config.eval
        for metric in options.metrics:
            choose((*METRICS, COPIES), metric, "eval.metrics")
        name = options.net or OF_DATASET.get(config.data.name)
        if name is None:
            raise UserError(
                f"no feature net is known for dataset '{config.data.name}': set config.eval.net to "
                f"one of {', '.join(PINNED)}, inception, or the path of a feature_net.npz; or "
                "compare no samples: config.eval.num_samples=0 and num_samples_in_loop=0"
            )
        stacked = config.data.name == "stacked_mnist"
        shape = tuple(config.data.image_shape)
        net = load_net(name, options.resize).for_images(shape, stacked)
        num_modes = len(train_data.class_names)
        classes_of_net = net.num_classes**3 if stacked else net.num_classes
        require(
            "modes" not in options.metrics or classes_of_net == num_modes,
            "eval.metrics",
            tuple(options.metrics),
            f"without modes: {net.name} does not know the {num_modes} classes",
        )
        require(
            "is" not in options.metrics or not stacked,
            "eval.metrics",
            tuple(options.metrics),
            "without is: the net sees each channel alone",
        )
        for key in ("num_samples", "num_samples_in_loop"):
            require(
                options[key] == 0 or options[key] >= 10,
                f"eval.{key}",
                options[key],
                "0, or at least 10",
            )
        if options.num_samples:
            reference = {"train": train_data, "eval": eval_data}[options.reference]
            check_enough(options.num_samples, "config.eval.num_samples", options.metrics)
            check_enough(len(reference), f"the reference {reference.name}", options.metrics)
        require(
            COPIES not in options.metrics or config.data.loader == "array",
            "eval.metrics",
            tuple(options.metrics),
            "without copies where config.data.loader is not array",
        )
        return cls(options, parallel, net, train_data, eval_data, shape)

    @property
    def reference(self) -> Any:
        """The split that images are compared with."""
        return {"train": self.train_data, "eval": self.eval_data}[self.config.reference]

    @property
    def protocol(self) -> Protocol:
        """What two sets must have in common to be compared."""
        return Protocol(self.net.name, self.net.sha256, self.net.resize, self.image_shape)

    def names(self, num_images: int, metrics: tuple[str, ...] | None = None) -> list[str]:
        """Returns the names of the numbers, before there are any."""
        metrics = self.config.metrics if metrics is None else metrics
        count = len(self.reference)
        names = [
            name
            for metric in metrics
            if metric != COPIES
            for name in names_of(metric, self.net.name, self.net.published, num_images, count)
        ]
        return names + (list(self._copies_names(num_images)) if COPIES in metrics else [])

    def __call__(
        self,
        batches: Iterable[np.ndarray],
        num_images: int,
        metrics: tuple[str, ...] | None = None,
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Computes the numbers of generated images, and draws some with their nearest neighbours.

        Args:
          batches: uint8 images [B, H, W, C]; every process is given all of them.
          num_images: how many there are.
          metrics: by default those of `config.eval.metrics`.

        Returns:
          ({"eval/<name>": float}, {"nearest_training_images": picture} if copies are looked for).
        """
        metrics = self.config.metrics if metrics is None else metrics
        check_enough(num_images, "the images to be judged", metrics)
        check_enough(len(self.reference), f"the reference {self.reference.name}", metrics)
        compared = [metric for metric in metrics if metric != COPIES]
        order = sample_order(num_images)[: NUM_COPIES if COPIES in metrics else 0]
        sample = np.empty((len(order), *self.image_shape), np.uint8)
        images = self._keep(batches, order, sample)
        numbers, pictures = {}, {}
        generated = self._summarize(self._features(images), num_images, compared)
        if compared:
            numbers = compare(self.real, generated, compared, self.net.published)
        if COPIES in metrics:
            rates, nearest = self._copies(sample)
            numbers.update(zip(self._copies_names(num_images), rates, strict=True))
            panel = unless_it_fails("nearest images", lambda: self._panel(sample, nearest))
            pictures = {} if panel is None else {"nearest_training_images": panel}
        return {f"eval/{name}": float(value) for name, value in numbers.items()}, pictures

    def describe(self, num_images: int, **more: Any) -> dict[str, Any]:
        """Returns the protocol of the numbers, for a report."""
        return {
            **dataclasses.asdict(self.protocol),
            "num_generated": num_images,
            "num_real": len(self.reference),
            "reference": f"{self.reference.name}:{self.reference.split}",
            "reference_sha256": self.reference.fingerprint,
            "sample": "random, always the same",  # where not all images are compared
            "pixels": "uint8",
            "scaled_with": RESIZE_FILTER,  # pictures of another size than image_shape
            **more,
        }

    @functools.cached_property
    def real(self) -> ImageSet:
        """The features of the reference, computed once and cached on disk."""
        identity = [_CACHE_FORMAT, dataclasses.asdict(self.protocol), self.reference.fingerprint]
        key = hashlib.sha256(json.dumps([*identity, MAX_KEPT]).encode()).hexdigest()
        name = f"{self.reference.name}-{self.reference.split}-{self.net.name}-{key[:16]}"
        folder = cache_root() / "statistics" / re.sub("[^A-Za-z0-9_-]+", "_", name[-120:])
        computed = None
        # A pass over the devices takes all processes, so one that lacks the cache is not alone.
        if not agreed(verified(folder) is not None):
            computed = self._summarize(self._reference_features(), len(self.reference), ("kd",))

        def write(to):
            arrays = computed.moments.mean, computed.moments.scatter, computed.features
            for name, array in zip(_ARRAYS, arrays, strict=True):
                np.save(f"{to}/{name}.npy", array)
            return {"count": computed.moments.count, "about": self.describe(0)}

        meta = main_first(lambda: cached(folder, write))
        mean, scatter, features = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS
        )
        return ImageSet(self.protocol, Moments(meta["count"], mean, scatter), features)

    def _reference_features(self):
        batches = eval_batches(self.reference, self._size)
        return self._features(batch["image"][batch["mask"]] for batch in batches)

    def _summarize(self, batches, num_images, metrics):
        return summarize(
            batches,
            self.protocol,
            num_images,
            keep=MAX_KEPT if any(METRICS[m].pairwise for m in metrics) else 0,
            num_classes=self.net.num_classes if "is" in metrics else 0,
            num_modes=len(self.reference.class_names) if "modes" in metrics else 0,
        )

    @property
    def _size(self):
        return self.parallel.round_up(self.config.batch_size)

    def _features(self, batches):
        """Features and logits of batches of images of any sizes, through batches of one size."""
        rows = self.parallel.rows(self._size)
        for images in _of_size(batches, self._size):
            padded = np.resize(images, (self._size, *images.shape[1:]))
            out = self._forward({"image": padded[rows]})
            yield {name: value[: len(images)] for name, value in out.items()}

    @functools.cached_property
    def _forward(self):
        """Compiled once: this process's rows {"image": [b, H, W, C]} -> outputs of all rows."""
        net = self.net
        mapped = self.parallel.compile_map(lambda v, batch: net.forward(v, batch["image"]))
        return functools.partial(mapped, self.parallel.replicate(net.variables))

    def _keep(
        self, batches: Iterable[np.ndarray], chosen: np.ndarray, kept: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yields the batches, and copies the images `chosen`, by their numbers, to `kept`."""
        shape, start = self.protocol.image_shape, 0
        for images in batches:
            if images.dtype != np.uint8 or images.shape[1:] != shape:
                raise UserError(
                    f"images to be judged must be uint8 {shape}, these are {images.dtype} "
                    f"{images.shape[1:]}"
                )
            here = (chosen >= start) & (chosen < start + len(images))
            kept[here] = images[chosen[here] - start]
            start += len(images)
            yield images

    def _copies_names(self, num_images):
        count = min(num_images, NUM_COPIES)
        held_out = min(count, len(self.eval_data))
        return (
            f"copying_rate_pixels_{count_name(count)}",
            f"copying_rate_pixels_held_out_{count_name(held_out)}",
        )

    def _copies(self, images: np.ndarray) -> tuple[list[float], np.ndarray]:
        """Looks for generated images, and as many held-out ones, in the training set, by pixels.

        Returns:
          (the copying rates of both, the indices of the training images nearest to each image).
        """
        training = self.train_data.images
        held_out = self.eval_data.images[sample_order(len(self.eval_data))[: len(images)]]
        flat = lambda some: some.reshape(len(some), -1)
        queries = np.concatenate([flat(images), flat(held_out)])
        nearest, distances = nearest_neighbours(queries, flat(training), NUM_NEIGHBOURS)
        rates = [share_of_copies(some) for some in np.split(distances, [len(images)])]
        return rates, nearest[: len(images)]

    def _panel(self, images: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Draws some images with the training images nearest to each in pixels on its right."""
        shown = zip(images[:NUM_PANEL], nearest)
        rows = [np.concatenate([[one], self.train_data.images[near]]) for one, near in shown]
        return plots.grid(np.concatenate(rows), NUM_NEIGHBOURS + 1)


def check_enough(count: int, what: str, metrics: tuple[str, ...]) -> None:
    """Raises a UserError where a metric needs more than `count` images; `what` names these."""
    least = {metric: METRICS[metric].at_least for metric in metrics if metric != COPIES}
    metric = max(least, key=least.get, default=None)
    if metric is not None and count < least[metric]:
        raise UserError(
            f"{what}: {count} images are too few for '{metric}' of config.eval.metrics, at least "
            f"{least[metric]} are needed"
        )


def _of_size(batches, size):
    """Yields the same images in batches of `size`, the last one smaller."""
    held = []
    for images in batches:
        held.append(images)
        while sum(map(len, held)) >= size:
            whole = np.concatenate(held)
            yield whole[:size]
            held = [whole[size:]]
    if held and sum(map(len, held)):
        yield np.concatenate(held)
