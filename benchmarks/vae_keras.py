"""Compares `configs/vae_mnist.py` or `vae_conv64.py` with the tutorial's model in Keras, in turns.

The same images, batch size, epochs and cores; each turn is an epoch:

  keras fit    `model.fit`; for the 28x28 tutorial the loss as it is written (half of the KL)
  keras loop   one `tf.function` step over NumPy batches, with the full KL
  ours         the compiled train step of this project, with the full KL

Pixels are in [0, 1] and not binarised, as in the tutorial, so the -ELBO is a common measure but no
likelihood. It is computed in the same way for all: the full KL, one posterior sample, test set.

python -m benchmarks.vae_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]
    [--config=configs/vae_conv64.py --config.data.name=folder:/path]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one).
"""

import functools
import json
import statistics

import jax
import numpy as np
from absl import logging
from ml_collections import config_flags

from benchmarks.keras_comparison import DATA_DIR, EPOCHS, SEED, Keras, Ours
from benchmarks.timing import seconds_without_compiling, take_turns
from genjax.runner.command import run_main
from genjax.runner.evaluator import Sampler
from genjax.runner.run import Run, set_up_process

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
NUM_DRAWN = 25


def figures(run: Run, ours: Ours) -> None:
    """Draws every figure of the run, the 30x30 manifold among them."""
    index = np.arange(64)
    batch = run.eval_data.batch(index, index)
    batch["image"] = batch["image"].astype(np.float32) / 255
    run.family.figures(*run.parallel.to_local(run.eval_tree(ours.state)), batch)


def main(argv: list[str]) -> None:
    """Trains and draws with all contestants and prints the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    config = CONFIG.value
    set_up_process(config)
    config.data.data_dir = DATA_DIR.value
    config.data.pixels = "unit"
    config.data.flip = "none"
    config.sample.batch_size = NUM_DRAWN
    config.eval.num_samples = config.eval.num_samples_in_loop = 0
    config.seed = SEED.value
    run = Run.build(config)
    steps = len(run.train_data) // config.batch_size
    keras, ours = Keras("keras_vae", run), Ours(run)
    contestants = {
        "keras fit": functools.partial(keras.seconds, "fit"),
        "keras loop": functools.partial(keras.seconds, "loop"),
        "ours": functools.partial(ours.train, steps),
    }
    seconds = take_turns(contestants, EPOCHS.value)
    images = steps * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    sampler, tree = Sampler(run), run.eval_tree(ours.state)
    sample = lambda: sampler(tree, 0, np.arange(NUM_DRAWN))
    drawing = {"keras": keras.seconds("draw"), "ours": seconds_without_compiling(sample)}
    result = {
        "images_per_second": rate,
        "ratio_to_fit": rate["ours"] / rate["keras fit"],
        "ratio_to_loop": rate["ours"] / rate["keras loop"],
        "test_neg_elbo_nats": {
            "keras fit": keras.run("test fit")[1],
            "keras loop": keras.run("test loop")[1],
            "ours": ours.evaluate()["eval/neg_elbo_nats"],
        },
        f"seconds_of_{NUM_DRAWN}_samples": drawing,
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    if config.model.latent_dim == 2:
        manifold = {
            "keras, 900 predicts": keras.seconds("manifold"),
            "ours": seconds_without_compiling(lambda: figures(run, ours)),
        }
        result["manifold_seconds"] = manifold
        result["manifold_ratio"] = manifold["keras, 900 predicts"] / manifold["ours"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
