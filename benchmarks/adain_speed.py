"""Pictures per second by AdaIN, the style's own pass included, as launch.py draws them.

VGG-19 to relu4_1 and its decoder at their published widths, with random weights, which cost the
same. Prints JSON: the best of --turns at each size.

python -m benchmarks.adain_speed [--sizes=256,512] [--turns=5] [--config.KEY=VALUE ...]
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks.timing import seconds_of
from experiments.style.adain import make_family
from genjax.runner.command import run_main
from genjax.runner.run import set_up_process

DEFAULT = "configs/style_adain.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
SIZES = flags.DEFINE_list("sizes", ["256", "512"], "Sides of content and style, both square.")
TURNS = flags.DEFINE_integer("turns", 5, "Measurements at each size.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Measures every size and prints the results."""
    del argv
    config = CONFIG.value
    set_up_process(config)
    config.weights = "random"
    family = make_family(config)
    params, model_state = jax.jit(family.init)(jax.random.key(0))
    stylize = functools.partial(jax.jit(family.stylize), model_state["vgg"], params)
    results = {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "layer": family.decoder.layer,
    }
    random = np.random.default_rng(0)
    for size in map(int, SIZES.value):
        images = jnp.asarray(random.random((2, 1, size, size, 3), np.float32))
        draw = functools.partial(_draw, stylize, *images)
        draw()  # compiles
        best = min(seconds_of(draw) for _ in range(TURNS.value))
        speed = {"seconds": round(best, 4), "images_per_second": round(1 / best, 2)}
        results[f"{size}x{size}"] = speed
    print(json.dumps(results, indent=1))


def _draw(stylize, content, style):
    jax.block_until_ready(stylize(content, [style]))


if __name__ == "__main__":
    run_main(main, DEFAULT)
