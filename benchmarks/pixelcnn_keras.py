"""Compares our PixelCNN with the tutorial's in Keras, in turns on the same cores.

Both have one 7x7 and seven 3x3 layers of 64 channels and a 256-way softmax; ours are masked.
Training: `model.fit` and our compiled step, batches of 64. Drawing one 28x28 image in Keras: 784
calls of `predict` (as the tutorial does) or of a compiled forward pass; in ours the cached sampler,
for one image and for 64 at once, and the naive one, a full forward pass for each pixel in one
compiled loop.

python -m benchmarks.pixelcnn_keras [--keras_python=PATH] [--data_dir=DIR] [--epochs=3]

An epoch here is ten batches. PATH is a Python with TensorFlow (pip install -e '.[bench]').
"""

import functools
import json
import statistics
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging
from jax import lax

from benchmarks.keras_comparison import DATA_DIR, EPOCHS, SEED, Keras, Ours
from benchmarks.timing import seconds_without_compiling, take_turns
from configs import pixelcnn_mnist
from genjax import autoregressive
from genjax.objectives.pixel_heads import Head
from genjax.runner.command import run_main
from genjax.runner.run import Run, set_up_process

SHAPE = (28, 28, 1)
STEPS = 10

Draw = Callable[[Any, jax.Array], jax.Array]  # (params, keys [B]) -> values [B, H, W, C]


def cached(network: nn.Module, head: Head) -> Draw:
    """Returns the cached sampler, compiled."""
    return jax.jit(
        lambda params, keys: autoregressive.sample(network, {"params": params}, head, keys, SHAPE)
    )


def naive(network: nn.Module, head: Head) -> Draw:
    """Returns a sampler with a full forward pass for each pixel, compiled."""

    def draw(params, keys):
        uniforms = head.uniforms(keys, SHAPE)

        def pixel(n, values):
            outputs = network.apply({"params": params}, head.encode(values))
            drawn = head.draw(uniforms, outputs, 1.0)
            position = (0, n // 28, n % 28, 0)
            new = lax.dynamic_slice(drawn, position, (len(keys), 1, 1, 1))
            return lax.dynamic_update_slice(values, new, position)

        return lax.fori_loop(0, 784, pixel, jnp.zeros((len(keys), *SHAPE), jnp.int32))

    return jax.jit(draw)


def drawing_seconds(draw: Draw, params: Any, count: int) -> float:
    """Returns the seconds in which a sampler draws so many images."""
    keys = jax.random.split(jax.random.key(SEED.value), count)
    return seconds_without_compiling(lambda: draw(params, keys).block_until_ready())


def main(argv: list[str]) -> None:
    """Trains and draws with both and prints the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    set_up_process()
    config = pixelcnn_mnist.get_config()
    config.data.data_dir = DATA_DIR.value
    config.data.pixels, config.objective.head = "unit", "softmax"
    config.model.residual = False
    config.seed = SEED.value
    run = Run.build(config)
    network, head = run.family.network, run.family.head
    keras, ours = Keras("keras_pixelcnn", run), Ours(run)
    contestants = {
        "keras fit": functools.partial(keras.seconds, "fit"),
        "ours": functools.partial(ours.train, STEPS),
    }
    seconds = take_turns(contestants, EPOCHS.value)
    images = STEPS * config.batch_size
    rate = {name: images / statistics.median(s) for name, s in seconds.items()}
    params = ours.state.params
    drawing = {
        "keras predict": keras.seconds("predict"),
        "keras compiled": keras.seconds("compiled"),
        "ours naive, 1 image": drawing_seconds(naive(network, head), params, 1),
        "ours cached, 1 image": drawing_seconds(cached(network, head), params, 1),
        "ours cached, 64 images": drawing_seconds(cached(network, head), params, 64),
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
