"""`configs/vae_mnist.py` or `vae_conv64.py` against the tutorial's model in Keras, turn by turn.

The same images, batch size, epochs and cores; after each epoch the next contestant has its turn:

  keras fit    `model.fit`; of the 28x28 tutorial the loss as it is written (half of the KL)
  keras loop   one `tf.function` step over NumPy batches, the loss as it was meant
  ours         the compiled train step of this project, the loss as it was meant

Pixels are in [0, 1] and not binarised, as in the tutorial, so the -ELBO is a common yardstick
but no likelihood. It is measured alike for all: the whole KL, one posterior sample, test set.

python -m experiments.bench.vae_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]
    [--config=configs/vae_conv64.py --config.data.name=folder:/path]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one).
"""

import json
import statistics
import time

import jax
import numpy as np
from absl import logging
from ml_collections import config_flags

from experiments.bench.beside_keras import DATA_DIR, EPOCHS, SEED, Keras, Ours
from experiments.command import run_main
from experiments.evaluation import make_sampler
from experiments.run import Run, set_up_process

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
NUM_DRAWN = 25


def timed(function):
    """Seconds of the second call; the first compiles."""
    function()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def figures(run, ours):
    """Every figure of the run, the 30x30 manifold among them."""
    index = np.arange(64)
    batch = run.eval_data.batch(index, index)
    batch["image"] = batch["image"].astype(np.float32) / 255
    params = run.parallel.to_local(ours.state.eval_params)
    run.experiment.figures(params, {}, batch)


def main(_):
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = CONFIG.value
    config.data.data_dir = DATA_DIR.value
    config.data.pixels = "unit"
    config.data.flip = "none"
    config.sample.batch_size = NUM_DRAWN
    config.eval.num_samples = config.eval.num_samples_in_loop = 0
    config.seed = SEED.value
    run = Run.build(config)
    steps = len(run.train_data) // config.batch_size
    keras, ours = Keras("keras_vae", run), Ours(run)
    seconds = {"keras fit": [], "keras loop": [], "ours": []}
    for _ in range(EPOCHS.value):
        seconds["keras fit"].append(keras.ask("fit")[0])
        seconds["keras loop"].append(keras.ask("loop")[0])
        seconds["ours"].append(ours.train(steps))
    images = steps * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    sample, tree = make_sampler(run), run.eval_tree(ours.state)
    drawing = {
        "keras": keras.ask("draw")[0],
        "ours": timed(lambda: sample(tree, 0, np.arange(NUM_DRAWN))),
    }
    result = {
        "images_per_second": rate,
        "ratio_to_fit": rate["ours"] / rate["keras fit"],
        "ratio_to_loop": rate["ours"] / rate["keras loop"],
        "test_neg_elbo_nats": {
            "keras fit": keras.ask("test fit")[1],
            "keras loop": keras.ask("test loop")[1],
            "ours": ours.evaluate()["eval/neg_elbo_nats"],
        },
        f"seconds_of_{NUM_DRAWN}_samples": drawing,
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    if config.model.latent_dim == 2:
        manifold = {
            "keras, 900 predicts": keras.ask("manifold")[0],
            "ours": timed(lambda: figures(run, ours)),
        }
        result["manifold_seconds"] = manifold
        result["manifold_ratio"] = manifold["keras, 900 predicts"] / manifold["ours"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
