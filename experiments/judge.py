"""How good generated images are: their distances to a dataset, for every family and any folder."""

import dataclasses
import functools
import hashlib
import json
import re

import numpy as np

from experiments.config import choose, require
from genjax import plots
from genjax.data.cache import cached, verified
from genjax.data.dataset import Dataset, eval_batches
from genjax.data.images import RESIZE_FILTER
from genjax.data.sources import cache_root
from genjax.errors import UserError
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
from genjax.metrics.neighbours import copying_rate, nearest_neighbours
from genjax.metrics.nets import OF_DATASET, PINNED, FeatureNet, load_net
from genjax.models.inception import RESIZES
from genjax.train.parallel import Parallel, agreed, main_first

# Beside those of `METRICS`: the share of near copies of training images, by pixels.
COPIES = "copies"

# What evaluations before the last one compute.
IN_LOOP = ("fd",)

# Images that copies are looked for of, and that the panel of neighbours shows.
NUM_COPIES = 1_000
NUM_PANEL = 10
NUM_NEIGHBOURS = 4

_CACHE_FORMAT = 1
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
    train_data: Dataset
    eval_data: Dataset
    image_shape: tuple[int, int, int]

    @classmethod
    def create(cls, config, parallel, train_data, eval_data):
        """Of a run's config: checks config.eval and reads the net.

        The data may be sources, not yet decoded, to be replaced before images are judged.
        """
        asked = config.eval
        for metric in asked.metrics:
            choose((*METRICS, COPIES), metric, "eval.metrics")
        choose(RESIZES, asked.resize, "eval.resize")
        choose(("train", "eval"), asked.reference, "eval.reference")
        name = asked.net or OF_DATASET.get(config.data.name)
        if name is None:
            raise UserError(
                f"no feature net is known for dataset '{config.data.name}': set config.eval.net to "
                f"one of {', '.join(PINNED)}, inception, or the path of a feature_net.npz"
            )
        stacked = config.data.name == "stacked_mnist"
        shape = tuple(config.data.image_shape)
        net = load_net(name, asked.resize).for_images(shape, stacked)
        num_modes = len(train_data.class_names)
        known = net.num_classes**3 if stacked else net.num_classes
        require(
            "modes" not in asked.metrics or known == num_modes,
            "eval.metrics",
            tuple(asked.metrics),
            f"without modes: {net.name} does not know the {num_modes} classes",
        )
        require(
            "is" not in asked.metrics or not stacked,
            "eval.metrics",
            tuple(asked.metrics),
            "without is: the net sees each channel alone",
        )
        for key in ("num_samples", "num_samples_in_loop"):
            require(
                asked[key] == 0 or asked[key] >= 10, f"eval.{key}", asked[key], "0, or at least 10"
            )
        require(
            COPIES not in asked.metrics or config.data.loader == "array",
            "eval.metrics",
            tuple(asked.metrics),
            "without copies where config.data.loader is not array",
        )
        return cls(asked, parallel, net, train_data, eval_data, shape)

    @property
    def reference(self):
        """The split that images are compared with."""
        return {"train": self.train_data, "eval": self.eval_data}[self.config.reference]

    @property
    def protocol(self):
        """What has to be alike for two sets to be compared."""
        return Protocol(self.net.name, self.net.sha256, self.net.resize, self.image_shape)

    def names(self, num_images, metrics=None):
        """The names of the numbers, before there are any."""
        metrics = self.config.metrics if metrics is None else metrics
        count = len(self.reference)
        names = [
            name
            for metric in metrics
            if metric != COPIES
            for name in names_of(metric, self.net.name, self.net.published, num_images, count)
        ]
        return names + (list(self._copies_names(num_images)) if COPIES in metrics else [])

    def __call__(self, batches, num_images, metrics=None):
        """The numbers of `num_images` images, and a panel of some beside their nearest neighbours.

        Args:
          batches: of uint8 images [B, H, W, C], in every process all of them.
          num_images: how many there are.
          metrics: by default those of `config.eval.metrics`.

        Returns:
          ({"eval/<name>": float}, {"nearest_training_images": picture} if copies are looked for).
        """
        metrics = self.config.metrics if metrics is None else metrics
        compared = [metric for metric in metrics if metric != COPIES]
        first = []  # filled while the batches pass
        images = self._passing(batches, first)
        found, pictures = {}, {}
        generated = self._summarize(self._features(images), num_images, compared)
        if compared:
            found = compare(self.real, generated, compared, self.net.published)
        if COPIES in metrics:
            first = np.concatenate(first)[:NUM_COPIES]
            rates = self._copying_rates(first)
            found.update(zip(self._copies_names(num_images), rates, strict=True))
            pictures["nearest_training_images"] = self._panel(first[:NUM_PANEL])
        return {f"eval/{name}": float(value) for name, value in found.items()}, pictures

    def describe(self, num_images, **more):
        """The protocol of the numbers, for a report."""
        return {
            **dataclasses.asdict(self.protocol),
            "num_generated": num_images,
            "num_real": len(self.reference),
            "reference": f"{self.reference.name}:{self.reference.split}",
            "reference_sha256": self.reference.fingerprint,
            "pixels": "uint8",
            "scaled_with": RESIZE_FILTER,  # pictures of another size than image_shape
            **more,
        }

    @functools.cached_property
    def real(self):
        """The `ImageSet` of the reference, made once and cached."""
        known = [_CACHE_FORMAT, dataclasses.asdict(self.protocol), self.reference.fingerprint]
        key = hashlib.sha256(json.dumps([*known, MAX_KEPT]).encode()).hexdigest()
        name = f"{self.reference.name}-{self.reference.split}-{self.net.name}-{key[:16]}"
        folder = cache_root() / "statistics" / re.sub("[^A-Za-z0-9_-]+", "_", name[-120:])
        made = None
        # A pass over the devices takes all processes, so one that lacks the cache is not alone.
        if not agreed(verified(folder) is not None):
            made = self._summarize(self._reference_features(), len(self.reference), ("kd",))

        def write(to):
            arrays = made.moments.mean, made.moments.scatter, made.features
            for name, array in zip(_ARRAYS, arrays, strict=True):
                np.save(f"{to}/{name}.npy", array)
            return {"count": made.moments.count, "about": self.describe(0)}

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

    def _passing(self, batches, first):
        """The batches themselves; the first images are put into a list on the way."""
        shape = self.protocol.image_shape
        kept = 0
        for images in batches:
            if images.dtype != np.uint8 or images.shape[1:] != shape:
                raise UserError(
                    f"images to be judged must be uint8 {shape}, these are {images.dtype} "
                    f"{images.shape[1:]}"
                )
            if kept < NUM_COPIES:
                first.append(images)
                kept += len(images)
            yield images

    def _copies_names(self, num_images):
        count = min(num_images, NUM_COPIES)
        held_out = min(count, len(self.eval_data))
        return (
            f"copying_rate_pixels_{count_name(count)}",
            f"copying_rate_pixels_held_out_{count_name(held_out)}",
        )

    def _copying_rates(self, images):
        """Of generated images, and of as many that were not trained on."""
        training = _flat(self.train_data.images)
        held_out = self.eval_data.images[: len(images)]
        return [copying_rate(_flat(some), training) for some in (images, held_out)]

    def _panel(self, images):
        """Each image, and right of it the training images nearest to it in pixels."""
        training = self.train_data.images
        nearest, _ = nearest_neighbours(_flat(images), _flat(training), NUM_NEIGHBOURS)
        rows = [np.concatenate([[one], training[near]]) for one, near in zip(images, nearest)]
        return plots.grid(np.concatenate(rows), NUM_NEIGHBOURS + 1)


def _flat(images):
    return np.asarray(images, np.float32).reshape(len(images), -1)


def _of_size(batches, size):
    """The same images in batches of `size`, the last one smaller."""
    held = []
    for images in batches:
        held.append(images)
        while sum(map(len, held)) >= size:
            whole = np.concatenate(held)
            yield whole[:size]
            held = [whole[size:]]
    if held and sum(map(len, held)):
        yield np.concatenate(held)
