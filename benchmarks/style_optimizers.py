"""Steps in which L-BFGS reaches the loss that Adam reaches for a picture.

Both minimise the loss of one config from the same start: Adam as the config has it, L-BFGS without
bounds on the pixels. The loss of L-BFGS counts as it is, and again with the pixels clipped to
[0, 1], as a saved picture has them. Prints JSON: the steps, the evaluations of the loss that they
took, seconds, and the losses after every step.

python -m benchmarks.style_optimizers [--config=configs/style_gatys.py] [--adam_steps=500]
    [--most_steps=500] [--config.KEY=VALUE ...]

Measured with a cat, The Starry Night and a distilled VGG-19, as docs/style_transfer.jpg was made,
    --config.sizes="(128,)" --config.content=chelsea.png --config.style=starry_night_van_gogh.jpg
    --config.weights=encoder5.npz --config.model.content_layers="('block4_conv2',)"
    --config.objective.relative=True --config.objective.content_weight=0.05
    --config.objective.style_weight=1.0 --config.objective.tv_weight=0.1 --config.optim.eps=1e-8
68 steps of L-BFGS (74 evaluations of the loss) for Adam's 500; clipped, 152 steps (161).
"""

import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.style.style_transfer import FIELDS as OWN
from genjax.data.transforms import unit
from genjax.runner.command import run_main
from genjax.runner.config import FIELDS
from genjax.runner.family import completed
from genjax.runner.fields import forget_idle, merged
from genjax.runner.run import Run, set_up_process

DEFAULT = "configs/style_gatys.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
ADAM_STEPS = flags.DEFINE_integer("adam_steps", 500, "After which its loss is to be reached.")
MOST_STEPS = flags.DEFINE_integer("most_steps", 500, "Limit for L-BFGS.")


def minimise(config: ConfigDict, num_steps: int, target: float = -np.inf) -> dict[str, Any]:
    """Makes steps until the loss of the clipped picture is at most `target`.

    Returns:
      {"losses": after 0, 1, ... steps, "clipped_losses": those of the clipped picture,
      "evaluations": of the loss, up to each step, "seconds": without compiling}.
    """
    config = config.copy_and_resolve_references()
    config.num_train_steps = num_steps
    run = Run.build(completed(config))
    batch = run.train_data.batch(np.zeros(1, int), np.zeros(1, int))
    content = {"image": unit(jnp.asarray(batch["image"]))}
    step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))

    @jax.jit
    def losses_of(state):
        def loss(image):
            return run.family.evaluate({"image": image}, state.model_state, content)["loss"]

        image = state.params["image"]
        return jnp.concatenate([loss(image), loss(jnp.clip(image, 0, 1))])

    state, batch = run.start(), run.parallel.shard(batch)
    step(run.start(), batch)  # compiles
    losses, evaluations, seconds = [losses_of(state)], [0], 0.0
    for _ in range(num_steps):
        start = time.perf_counter()
        state, (metrics, _) = step(state, batch)
        jax.block_until_ready(state)
        seconds += time.perf_counter() - start
        losses.append(losses_of(state))
        evaluations.append(evaluations[-1] + int(metrics.get("line_search", 1)))
        if losses[-1][1] <= target:
            break
    plain, clipped = np.asarray(losses, np.float64).T
    return {
        "losses": plain.tolist(),
        "clipped_losses": clipped.tolist(),
        "evaluations": evaluations,
        "seconds": round(seconds, 2),
    }


def reached(result: dict[str, Any], name: str, target: float) -> dict[str, int] | None:
    """Returns {"steps", "evaluations"} after which a loss is at most `target`; None if never.

    Args:
      result: of `minimise`.
      name: "losses" or "clipped_losses".
      target: the loss.
    """
    steps = [i for i, loss in enumerate(result[name]) if loss <= target]
    return {"steps": steps[0], "evaluations": result["evaluations"][steps[0]]} if steps else None


def main(argv: list[str]) -> None:
    """Optimises the picture with both and prints the results."""
    del argv
    config = CONFIG.value
    set_up_process(config)
    adam = minimise(config, ADAM_STEPS.value)
    target = adam["clipped_losses"][-1]
    config.optim.name, config.objective.clip = "lbfgs", False
    forget_idle(config, merged(FIELDS, OWN), ("optim.name",))  # the options of adam
    lbfgs = minimise(config, MOST_STEPS.value, target)
    results = {
        "weights": config.weights or "published",
        "sizes": config.sizes,
        "adam_steps": ADAM_STEPS.value,
        "adam_loss": target,
        "lbfgs": reached(lbfgs, "losses", target),
        "lbfgs_clipped": reached(lbfgs, "clipped_losses", target),
        "seconds": {"adam": adam["seconds"], "lbfgs": lbfgs["seconds"]},
        "curves": {"adam": adam["clipped_losses"], "lbfgs": lbfgs["clipped_losses"]},
    }
    print(json.dumps(results))


if __name__ == "__main__":
    run_main(main, DEFAULT)
