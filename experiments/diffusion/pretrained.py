"""Parameters from elsewhere: those that training starts with, and those of a guide.

`config.init_from` names a trained run's workdir or a file of weights (`genjax.weights.networks`).
Training starts with them; where a workdir holds no run yet, --mode=eval and --mode=sample use them.
`config.sample.weaker` names a run's workdir, whose network is the guide of autoguidance.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.diffusion.denoisers import DenoisingFamily
from genjax.files import user_path
from genjax.runner.config import FIELDS
from genjax.runner.family import completed, find_family
from genjax.runner.fields import flatten, forget_idle, merged, require
from genjax.runner.restore import restored_run
from genjax.runner.terminal import say
from genjax.runner.workdir import trained_config
from genjax.typing import Params
from genjax.weights.networks import load_network


def initial_loader(config: ConfigDict, family: DenoisingFamily) -> Callable[[], Params] | None:
    """Returns the function that reads the parameters of config.init_from; None where it is empty.

    It is called when a run starts, not when it resumes: the source may be gone by then.
    """
    return functools.partial(_load_initial, config, family) if config.init_from else None


def _load_initial(config: ConfigDict, family: DenoisingFamily) -> Params:
    """Reads the parameters of config.init_from, NumPy arrays.

    Raises:
      UserError: they are not there, or not those of the family's network.
    """
    source = user_path(config.init_from, "config.init_from")
    what = "a run's workdir or a file of weights"
    require(source.exists(), "init_from", config.init_from, what)
    shapes = jax.eval_shape(family.init, jax.random.key(0))[0]
    if not source.is_dir():
        params, sha256 = load_network(source, family.network, shapes, family.image_shape)
        say(f"initial parameters from {source}, SHA-256 {sha256}")
        return params
    run, state, step = restored_run(_config_of(source, config), source, "latest")
    params = jax.tree.map(np.asarray, run.parallel.to_local(run.eval_tree(state)[0]))
    shapes_of = lambda tree: jax.tree.map(lambda x: tuple(x.shape), tree)
    same = shapes_of(params) == shapes_of(shapes)
    require(same, "init_from", config.init_from, "a run of the same network")
    say(f"initial parameters from {source} at step {step}")
    return params


def guide_config(config: ConfigDict) -> ConfigDict:
    """Returns the config of the run that config.sample.weaker names.

    Raises:
      UserError: there is no such run, or it is not of the same process, image shape and classes.
    """
    workdir, step = config.sample.weaker, config.sample.weaker_step
    known = step in ("latest", "best") or step.isdecimal()
    require(known, "sample.weaker_step", step, "a number, latest or best")
    guide = _config_of(workdir, config)
    ours, theirs = flatten(completed(config)), flatten(guide)
    for prefix in (
        "experiment",
        "process.name",
        "process.",
        "data.image_shape",
        "model.conditional",
    ):
        for key in (key for key in ours if key.startswith(prefix)):
            same = ours[key] == theirs.get(key)
            require(same, "sample.weaker", workdir, f"a run with config.{key}={ours[key]!r}")
    return guide


def guide_loader(config: ConfigDict, num_classes: int) -> Callable[[], dict[str, Any]] | None:
    """Returns the function that restores the guide; None where config.sample.weaker is empty.

    The function returns {"guide": parameters on the devices}, those that are evaluated.
    """
    return functools.partial(_load_guide, config, num_classes) if config.sample.weaker else None


def _load_guide(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    workdir = user_path(config.sample.weaker, "config.sample.weaker")
    step = config.sample.weaker_step
    run, state, _ = restored_run(guide_config(config), workdir, step)
    same = run.family.num_classes == num_classes
    require(same, "sample.weaker", workdir, f"a run with {num_classes} classes")
    return {"guide": run.eval_tree(state)[0]}


def _config_of(workdir: Path | str, config: ConfigDict) -> ConfigDict:
    """Returns the config of another run, to restore its parameters and nothing else."""
    other = trained_config(user_path(workdir, "the other run"), config)
    other.sample.update({"weaker": "", "guidance": 1.0, "task": "draw", "label": -1})
    other.eval.update({"num_samples": 0, "num_samples_in_loop": 0})
    other.checkpoint.best_metric = other.init_from = ""
    fields = merged(FIELDS, find_family(other.experiment).FIELDS)
    return completed(forget_idle(other, fields, flatten(other)))
