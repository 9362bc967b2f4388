"""Our PixelCNN against the tutorial's in Keras/TensorFlow, turn by turn on the same cores.

Both have one 7x7 and seven 3x3 layers of 64 and a 256-way softmax; ours are masked. Training:
`model.fit` and our compiled step, batches of 64. Drawing one 28x28 image in Keras: 784 calls of
`predict` (as the tutorial does) or of a compiled forward pass; in ours the cached sampler, one
image and 64 at once, and the naive one, a whole forward pass for each pixel in one compiled loop.

python -m experiments.bench.pixelcnn_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

An epoch is ten batches. PATH is a Python with TensorFlow (pip install -e '.[bench]').
"""

import json
import statistics
import time

import jax
import jax.numpy as jnp
from absl import logging
from jax import lax

from configs import pixelcnn_mnist
from experiments.bench.beside_keras import DATA_DIR, EPOCHS, SEED, Keras, Ours
from experiments.command import run_main
from experiments.run import Run, set_up_process
from genjax import autoregressive
from genjax.models.pixelcnn import PixelCnn
from genjax.objectives.pixel_heads import Softmax

SHAPE = (28, 28, 1)
STEPS = 10


def cached(network, head):
    return jax.jit(
        lambda params, keys: autoregressive.sample(network, {"params": params}, head, keys, SHAPE)
    )


def naive(network, head):
    """A whole forward pass for each pixel."""

    def draw(params, keys):
        uniforms = head.uniforms(keys, SHAPE)

        def pixel(n, values):
            outputs = network.apply({"params": params}, head.encode(values))
            drawn = head.draw(uniforms, outputs, 1.0)
            here = (0, n // 28, n % 28, 0)
            new = lax.dynamic_slice(drawn, here, (len(keys), 1, 1, 1))
            return lax.dynamic_update_slice(values, new, here)

        return lax.fori_loop(0, 784, pixel, jnp.zeros((len(keys), *SHAPE), jnp.int32))

    return jax.jit(draw)


def timed(draw, params, count):
    keys = jax.random.split(jax.random.key(SEED.value), count)
    draw(params, keys).block_until_ready()
    began = time.perf_counter()
    draw(params, keys).block_until_ready()
    return time.perf_counter() - began


def main(_):
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = pixelcnn_mnist.get_config()
    config.data.data_dir = DATA_DIR.value
    config.data.pixels, config.objective.head = "unit", "softmax"
    config.model.residual = False
    config.seed = SEED.value
    run = Run.build(config)
    head = Softmax(256, 1)
    network = PixelCnn(head.num_outputs)
    keras, ours = Keras("keras_pixelcnn", run), Ours(run)
    seconds = {"keras fit": [], "ours": []}
    for _ in range(EPOCHS.value):
        seconds["keras fit"].append(keras.ask("fit")[0])
        seconds["ours"].append(ours.train(STEPS))
    images = STEPS * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    params = ours.state.params
    drawing = {
        "keras predict": keras.ask("predict")[0],
        "keras compiled": keras.ask("compiled")[0],
        "ours naive, 1 image": timed(naive(network, head), params, 1),
        "ours cached, 1 image": timed(cached(network, head), params, 1),
        "ours cached, 64 images": timed(cached(network, head), params, 64),
    }
    one, many = drawing["ours cached, 1 image"], drawing["ours cached, 64 images"] / 64
    result = {
        "training_images_per_second": rate,
        "training_ratio": rate["ours"] / rate["keras fit"],
        "drawing_seconds": drawing,
        "predict_over_cached": {
            "1 image": drawing["keras predict"] / one,
            "each of 64": drawing["keras predict"] / many,
        },
        "naive_over_cached": drawing["ours naive, 1 image"] / one,
        "epochs": EPOCHS.value,
        "seed": SEED.value,
        "jax": jax.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
