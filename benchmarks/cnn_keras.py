"""Compares `configs/cnn_cifar10.py` with the tutorial's own model in Keras, in turns.

The same images, batch size, epochs and cores; each turn is an epoch:

  keras fit    `model.fit`
  keras loop   one `tf.function` step over NumPy batches
  ours         the compiled train step of this project

python -m benchmarks.cnn_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one).
"""

import functools
import json
import statistics

import jax
from absl import logging

from benchmarks.keras_comparison import DATA_DIR, EPOCHS, SEED, Keras, Ours
from benchmarks.timing import take_turns
from configs import cnn_cifar10
from genjax.runner.command import run_main
from genjax.runner.run import Run, set_up_process


def main(argv: list[str]) -> None:
    """Trains all contestants and prints the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = cnn_cifar10.get_config()
    config.data.data_dir = DATA_DIR.value
    config.seed = SEED.value
    run = Run.build(config)
    steps = len(run.train_data) // config.batch_size
    keras, ours = Keras("keras_cnn", run), Ours(run)
    contestants = {
        "keras fit": functools.partial(keras.seconds, "fit"),
        "keras loop": functools.partial(keras.seconds, "loop"),
        "ours": functools.partial(ours.train, steps),
    }
    seconds = take_turns(contestants, EPOCHS.value)
    images = steps * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    result = {
        "images_per_second": rate,
        "ratio_to_fit": rate["ours"] / rate["keras fit"],
        "ratio_to_loop": rate["ours"] / rate["keras loop"],
        "test_accuracy": {
            "keras fit": keras.run("test fit")[1],
            "keras loop": keras.run("test loop")[1],
            "ours": ours.evaluate()["eval/accuracy"],
        },
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
