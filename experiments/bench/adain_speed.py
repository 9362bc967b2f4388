"""Pictures a second by AdaIN, the style's own pass included, as launch.py draws them.

VGG-19 to relu4_1 and its decoder at their published widths, with random weights, which cost the
same. Prints JSON: of each size the best of --turns.

python -m experiments.bench.adain_speed [--sizes=256,512] [--turns=5] [--config.KEY=VALUE ...]
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import adain
from experiments.command import run_main
from experiments.run import set_up_process

DEFAULT = "configs/style_adain.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
SIZES = flags.DEFINE_list("sizes", ["256", "512"], "Sides of content and style, squares.")
TURNS = flags.DEFINE_integer("turns", 5, "Of each size.", lower_bound=1)


def main(argv):
    del argv
    set_up_process()
    config = CONFIG.value
    config.weights = "random"
    layers, network, _, decoder, _ = adain.load(config)
    keys = jax.random.split(jax.random.key(0))
    image = jnp.zeros((1, 32, 32, 3))
    found, encoder = jax.jit(network.init_with_output)(keys[0], image)
    params = jax.jit(decoder.init)(keys[1], found[layers[-1]])["params"]
    results = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "layer": layers[-1]}
    random = np.random.default_rng(0)
    for size in map(int, SIZES.value):
        content, style = random.random((2, size, size, 3), np.float32)
        draw = adain.make_draw(config, (1.0,), network, encoder["params"], decoder, params, [style])
        content, seconds = jnp.asarray(content)[None], []
        jax.block_until_ready(draw(content))  # compiles
        for _ in range(TURNS.value):
            began = time.perf_counter()
            jax.block_until_ready(draw(content))
            seconds.append(time.perf_counter() - began)
        best = min(seconds)
        told = {"seconds": round(best, 4), "images_per_second": round(1 / best, 2)}
        results[f"{size}x{size}"] = told
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
