"""`configs/cnn_cifar10.py` against the tutorial's own model in Keras/TensorFlow, turn by turn.

The same images, batch size, epochs and cores; after each epoch the next contestant has its turn:

  keras fit    `model.fit`
  keras loop   one `tf.function` step over NumPy batches
  ours         the compiled train step of this project

python -m experiments.bench.cnn_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

PATH is a Python with TensorFlow (pip install -e '.[bench]'; by default this one).
"""

import json
import statistics

import jax
from absl import logging

from configs import cnn_cifar10
from experiments.bench.beside_keras import DATA_DIR, EPOCHS, SEED, Keras, Ours
from experiments.command import run_main
from experiments.run import Run, set_up_process


def main(_):
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = cnn_cifar10.get_config()
    config.data.data_dir = DATA_DIR.value
    config.seed = SEED.value
    run = Run.build(config)
    steps = len(run.train_data) // config.batch_size
    keras, ours = Keras("keras_cnn", run), Ours(run)
    seconds = {"keras fit": [], "keras loop": [], "ours": []}
    for _ in range(EPOCHS.value):
        seconds["keras fit"].append(keras.ask("fit")[0])
        seconds["keras loop"].append(keras.ask("loop")[0])
        seconds["ours"].append(ours.train(steps))
    images = steps * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    result = {
        "images_per_second": rate,
        "ratio_to_fit": rate["ours"] / rate["keras fit"],
        "ratio_to_loop": rate["ours"] / rate["keras loop"],
        "test_accuracy": {
            "keras fit": keras.ask("test fit")[1],
            "keras loop": keras.ask("test loop")[1],
            "ours": ours.evaluate()["eval/accuracy"],
        },
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
