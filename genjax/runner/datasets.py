"""The two splits of a config's dataset: found, checked, loaded."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from genjax.data.dataset import Dataset, StreamedDataset, load_dataset
from genjax.data.resident import Resident
from genjax.data.sources import find_source, tfds_data_dir
from genjax.errors import UserError
from genjax.runner.fields import require
from genjax.runner.terminal import say
from genjax.train.parallel import main_first


def find_sources(config: ConfigDict) -> list:
    """Finds the sources of both splits, not decoded yet: [training, evaluation].

    Raises:
      UserError: a dataset or split is missing, empty, or of other classes than the other one.
    """
    sources = []
    eval_name = config.data.eval_name or config.data.name
    for name, split in (
        (config.data.name, config.data.train_split),
        (eval_name, config.data.eval_split),
    ):
        source = find_source(name, split, config.data.data_dir)
        if source.size < 1:
            raise UserError(f"dataset '{source.name}' has an empty split '{source.split}'")
        describe(source)
        sources.append(source)
    train, evaluation = (len(source.class_names) for source in sources)
    what = f"a dataset of {train} classes as '{config.data.name}' has, not {evaluation}"
    require(train == evaluation, "data.eval_name", eval_name, what)
    check_size(sources[0], sources[0].size, config)
    return sources


def describe(source) -> None:
    """Says what was found in a folder of pictures; of other data there is nothing to say."""
    if source.summary:
        say(f"{source.name} ({source.split}): {source.summary}")


def load_splits(config: ConfigDict, *sources) -> list[Dataset | StreamedDataset]:
    """Loads the datasets of some sources, in the main process first: the others find its cache."""
    shape, data = tuple(config.data.image_shape), config.data
    return main_first(
        lambda: [
            load_dataset(source, shape, loader=data.loader, bad_images=data.bad_images)
            for source in sources
        ]
    )


def check_size(data, size: int, config: ConfigDict) -> None:
    """Raises a UserError for a training set smaller than one batch."""
    if size < config.batch_size:
        raise UserError(
            f"dataset '{data.name}' has {size} examples in split '{data.split}', fewer than "
            f"config.batch_size={config.batch_size}"
        )


def first_images(data: Dataset | StreamedDataset, num_images: int) -> np.ndarray | None:
    """Returns the first images of a dataset, starting over where it is smaller; None of 0."""
    index = np.arange(num_images) % len(data)
    return data.batch(index, index)["image"] if num_images else None


def resident(data: Dataset) -> Resident:
    """Returns a whole dataset on the default device."""
    flat = jnp.asarray(data.images).reshape(len(data), -1)
    return Resident(flat, jnp.asarray(data.labels), data.images.shape[1:])


def prepare(config: ConfigDict) -> None:
    """Downloads and prepares the dataset of a config: --mode=prepare."""
    name = config.data.name
    if name.startswith(("folder:", "picture:", "codes:")):
        raise UserError(f"config.data.name='{name}' is the data: there is nothing to prepare")
    from genjax.data import builders  # imports TFDS, which is not needed once data is cached

    made_of = "mnist" if name == "stacked_mnist" else name
    path = builders.prepare(made_of, tfds_data_dir(config.data.data_dir))
    say(f"dataset '{name}' is ready in {path}")
