"""The numbers of real images, which are those that a perfect generator would have.

Random images of the evaluation split, which no model was trained on, are judged as if they were
generated, by the protocol of a config.

python -m benchmarks.floor [--config=configs/vae_mnist.py] [--counts=1000,2000,5000,10000]
"""

import json

from absl import flags
from ml_collections import config_flags

from genjax.data.dataset import load_dataset
from genjax.metrics.arrays import sample_order
from genjax.runner.command import run_main
from genjax.runner.config import check_config
from genjax.runner.datasets import find_sources
from genjax.runner.family import find_family
from genjax.runner.judge import COPIES, Judge
from genjax.runner.run import set_up_process
from genjax.train.parallel import Parallel

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
COUNTS = flags.DEFINE_list("counts", ["1000", "2000", "5000", "10000"], "Numbers of images.")


def main(argv: list[str]) -> None:
    """Prints the numbers, with their protocol."""
    del argv
    config = CONFIG.value
    set_up_process(config)
    parallel = Parallel.create(config.parallel, config.num_devices)
    check_config(config, find_family(config.experiment).FIELDS, parallel.size, ("eval.",))
    shape = tuple(config.data.image_shape)
    data = [load_dataset(source, shape) for source in find_sources(config)]
    judge = Judge.create(config, parallel, *data)
    metrics = tuple(metric for metric in config.eval.metrics if metric != COPIES)
    report = {}
    for count in map(int, COUNTS.value):
        images = data[1].images[sample_order(len(data[1]))[:count]]
        report.update(judge([images], count, metrics)[0])
    print(json.dumps({"protocol": judge.describe(count), **report}, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
