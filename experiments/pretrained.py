"""Parameters from elsewhere, of another run or of a file that somebody published, and such files.

`config.init_from` names a trained run's workdir or a file of weights (`genjax.weights.networks`).
Training begins with them; where a workdir holds no run yet, --mode=eval and --mode=sample use them.
"""

import functools
from pathlib import Path

import jax
import numpy as np

from experiments.config import require
from experiments.evaluation import restored
from experiments.run import say
from experiments.workdir import trained_config
from genjax.weights.networks import load_network, save_network


def pretrained(config, init, network, image_shape):
    """() -> the parameters that config.init_from names, NumPy arrays, or None where it is empty.

    Args:
      init: key -> (params, model_state), those that are wanted.
      network, image_shape: the Flax module, and (H, W, C) of its images.
    """
    if not config.init_from:
        return None
    # Read when a run begins, not when it resumes: what it began with may be gone by then.
    return functools.partial(_load, config, init, network, image_shape)


def _load(config, init, network, image_shape):
    where = Path(config.init_from).expanduser()
    require(where.exists(), "init_from", config.init_from, "a run's workdir or a file of weights")
    wanted = jax.eval_shape(init, jax.random.key(0))[0]
    if not where.is_dir():
        params, sha256 = load_network(where, network, wanted, image_shape)
        say(f"the parameters of {where}, SHA-256 {sha256}")
        return params
    run, state, step = restored(other_run(where, config), where, "latest")
    params = jax.tree.map(np.asarray, run.parallel.to_local(run.eval_tree(state)[0]))
    shape_of = lambda tree: jax.tree.map(lambda x: tuple(x.shape), tree)
    same = shape_of(params) == shape_of(wanted)
    require(same, "init_from", config.init_from, "a run of the same network")
    say(f"the parameters of {where} at step {step}")
    return params


def other_run(workdir, config):
    """The config of another diffusion run, for its parameters alone."""
    there = trained_config(workdir, config)
    there.sample.update({"weaker": "", "guidance": 1.0, "task": "draw", "label": -1})
    there.eval.update({"num_samples": 0, "num_samples_in_loop": 0})
    there.checkpoint.best_metric = there.init_from = ""
    return there


def export(config, network, params, model_state, folder):
    """Writes the network for others, `unet.safetensors` or `dit.safetensors`."""
    path = Path(folder) / f"{config.model.name}.safetensors"
    names = save_network(path, network, params, {"config": config.to_json()})
    say(f"the network is {path}, under {names} names")
