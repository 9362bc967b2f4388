"""In how many steps L-BFGS reaches the loss of a picture that Adam reaches in its own.

Both go down the loss of one config from the same start: Adam as the config has it, L-BFGS without
bounds on the pixels. Its loss counts as it is, and again with the pixels cut off to [0, 1], as a
saved picture has them. Prints JSON: the steps, how often the loss was computed for them, seconds,
and the losses after every step.

python -m experiments.bench.style_optimizers [--config=configs/style_gatys.py] [--adam_steps=500]
    [--most_steps=500] [--config.KEY=VALUE ...]

Measured with a cat, The Starry Night and a distilled VGG-19, as docs/style_transfer.jpg was made,
    --config.sizes="(128,)" --config.content=chelsea.png --config.style=starry_night_van_gogh.jpg
    --config.weights=encoder5.npz --config.model.content_layers="('block4_conv2',)"
    --config.objective.relative=True --config.objective.content_weight=0.05
    --config.objective.style_weight=1.0 --config.objective.tv_weight=0.1 --config.optim.eps=1e-8
68 steps of L-BFGS (74 computations of the loss) for Adam's 500; cut off, 152 steps (161).
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments.command import run_main
from experiments.run import Run, completed, set_up_process
from genjax.data.transforms import unit

DEFAULT = "configs/style_gatys.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
ADAM_STEPS = flags.DEFINE_integer("adam_steps", 500, "Whose loss is to be reached.")
MOST_STEPS = flags.DEFINE_integer("most_steps", 500, "Of L-BFGS, at most.")


def descend(config, num_steps, target=-np.inf):
    """Takes steps until the loss of the cut-off picture is at most `target`.

    Returns:
      {"losses": after 0, 1, ... steps, "clipped_losses", "evaluations": of the loss, up to each
      step, "seconds": without compiling}.
    """
    config = config.copy_and_resolve_references()
    config.num_train_steps = num_steps
    run = Run.build(completed(config))
    batch = run.train_data.batch(np.zeros(1, int), np.zeros(1, int))
    shown = {"image": unit(jnp.asarray(batch["image"]))}
    step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))

    @jax.jit
    def losses(state):
        def loss(image):
            return run.experiment.eval_fn({"image": image}, state.model_state, shown, None)["loss"]

        image = state.params["image"]
        return jnp.concatenate([loss(image), loss(jnp.clip(image, 0, 1))])

    state, batch = run.parallel.init(run.init), run.parallel.shard(batch)
    step(run.parallel.init(run.init), batch)  # compiles
    found, evaluations, seconds = [losses(state)], [0], 0.0
    for _ in range(num_steps):
        began = time.perf_counter()
        state, (metrics, _) = step(state, batch)
        jax.block_until_ready(state)
        seconds += time.perf_counter() - began
        found.append(losses(state))
        evaluations.append(evaluations[-1] + int(metrics.get("line_search", 1)))
        if found[-1][1] <= target:
            break
    plain, clipped = np.asarray(found, np.float64).T
    return {
        "losses": plain.tolist(),
        "clipped_losses": clipped.tolist(),
        "evaluations": evaluations,
        "seconds": round(seconds, 2),
    }


def reached(found, name, target):
    """{"steps", "evaluations"} after which a loss is at most `target`, None if it never is."""
    steps = [i for i, loss in enumerate(found[name]) if loss <= target]
    return {"steps": steps[0], "evaluations": found["evaluations"][steps[0]]} if steps else None


def main(argv):
    del argv
    set_up_process()
    config = CONFIG.value
    adam = descend(config, ADAM_STEPS.value)
    target = adam["clipped_losses"][-1]
    config.optim.name, config.objective.clip = "lbfgs", False
    lbfgs = descend(config, MOST_STEPS.value, target)
    found = {
        "weights": config.weights or "published",
        "sizes": config.sizes,
        "adam_steps": ADAM_STEPS.value,
        "adam_loss": target,
        "lbfgs": reached(lbfgs, "losses", target),
        "lbfgs_clipped": reached(lbfgs, "clipped_losses", target),
        "seconds": {"adam": adam["seconds"], "lbfgs": lbfgs["seconds"]},
        "curves": {"adam": adam["clipped_losses"], "lbfgs": lbfgs["clipped_losses"]},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    run_main(main, DEFAULT)
