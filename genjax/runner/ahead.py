"""The programs of a run whose data and devices need not be here: to be lowered and compiled."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from genjax.data.codes import PREFIX
from genjax.data.dataset import Dataset
from genjax.runner.datasets import resident
from genjax.runner.evaluator import Evaluator, Program, Sampler
from genjax.runner.family import completed
from genjax.runner.run import Run
from genjax.train.parallel import Parallel

# Examples of the two splits, and classes. A folder may hold any number; these stand for one.
SIZES = {
    "digits": (1_415, 382, 10),
    "mnist": (60_000, 10_000, 10),
    "fashion_mnist": (60_000, 10_000, 10),
    "cifar10": (50_000, 10_000, 10),
    "stacked_mnist": (128_000, 26_000, 1_000),
    "folder": (10_000, 1_000, 0),
    "codes": (50_000, 10_000, 10),
    "picture": (1, 1, 0),
}
NUM_CODES = 512  # where a file of codes is not there

PROGRAMS = ("step", "sample", "evaluate")


def run_without_data(config: ConfigDict, parallel: Parallel) -> Run:
    """Builds a run over black images, which take no memory; nothing is read from a disk.

    Weights that would be downloaded are random ones, which changes no program of the run.

    Args:
      config: of a run. A picture that is made in several sizes has the largest.
      parallel: the devices, which need not be of this machine.

    Raises:
      UserError: the config cannot run on these devices.
    """
    config = config.copy_and_resolve_references()
    if "weights" in config:
        config.weights = "random"
    if "size_index" in config:
        config.size_index = len(config.sizes) - 1
    config.parallel = parallel.kind
    with tempfile.TemporaryDirectory() as folder:
        if config.data.name.startswith(PREFIX):
            config.data.name = f"{PREFIX}{_write_codes(Path(folder), config)}"
        config = completed(config)
        return Run.build(config, parallel, (_split(config, 0), _split(config, 1)))


def programs(run: Run) -> dict[str, Program]:
    """Returns the programs of a run by the names of `PROGRAMS`, each with shapes of its arguments.

    `function.lower(*shapes)` lowers one. A run that has nothing to sample has no "sample".
    """
    state = jax.eval_shape(run.init)
    tree = jax.eval_shape(lambda state: (state.eval_params, state.model_state), state)
    if run.family.standing_statistics:
        tree = (tree[0], jax.eval_shape(run.family.standing_statistics, *tree))
    found = {"step": _step(run, state)}
    if run.family.sample is not None:
        found["sample"] = Sampler(run).program(tree)
    found["evaluate"] = Evaluator(run).program(tree)
    return found


def _step(run: Run, state: Any) -> Program:
    """Returns the step, one to a dispatch."""
    parallel, size = run.parallel, run.config.batch_size
    rows = np.arange(size)
    batch, dataset = run.train_data.batch(rows % len(run.train_data), rows), ()
    if run.config.data.on_device:
        batch = {key: batch[key] for key in ("index", "slot")}
        whole = jax.eval_shape(lambda: resident(run.train_data))
        copies = parallel if parallel.kind == "pmap" else Parallel("jit", parallel.devices)
        dataset = (copies.abstract_state(whole),)
    shapes = (parallel.abstract_state(state), parallel.abstract_batch(batch), *dataset)
    return parallel.compile_train_step(run.train_step, state), shapes


def _split(config: ConfigDict, which: int) -> Dataset:
    """Returns black images, as many as the training (0) or evaluation split (1) has."""
    name = config.data.name.split(":")[0] if which == 0 else config.data.eval_name
    *sizes, classes = SIZES[(name or config.data.name).split(":")[0]]
    dtype = np.uint16 if config.data.name.startswith(PREFIX) else np.uint8
    shape = (sizes[which], *config.data.image_shape)
    return Dataset(
        name=config.data.name,
        split=(config.data.train_split, config.data.eval_split)[which],
        images=np.broadcast_to(np.zeros((), dtype), shape),
        labels=np.zeros(sizes[which], np.int32),
        class_names=tuple(map(str, range(classes))),
        fingerprint="",
    )


def _write_codes(folder: Path, config: ConfigDict) -> Path:
    """Writes a small file of codes without a decoder."""
    codes = np.zeros((1, *config.data.image_shape[:2]), np.uint16)
    labels = np.full(1, SIZES["codes"][2] - 1, np.int32)
    arrays = {"train": codes, "test": codes, "train_labels": labels, "test_labels": labels}
    path = folder / "codes.npz"
    np.savez(path, num_codes=NUM_CODES, **arrays)
    return path
