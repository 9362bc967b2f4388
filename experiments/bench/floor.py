"""What real images score: the numbers that a perfect generator would have.

Images of the evaluation split, which no model was trained on, are judged as if they were generated,
by the protocol of a config.

python -m experiments.bench.floor [--config=configs/vae_mnist.py] [--counts=1000,2000,5000,10000]
"""

import json

from absl import flags
from ml_collections import config_flags

from experiments.command import run_main
from experiments.config import validate
from experiments.judge import COPIES, Judge
from experiments.run import find_sources, set_up_process
from genjax.data.dataset import load_dataset
from genjax.train.parallel import Parallel

DEFAULT = "configs/vae_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
COUNTS = flags.DEFINE_list("counts", ["1000", "2000", "5000", "10000"], "How many images.")


def main(_):
    set_up_process()
    config = CONFIG.value
    parallel = Parallel.create(config.parallel, config.num_devices)
    validate(config, parallel.size)
    shape = tuple(config.data.image_shape)
    data = [load_dataset(source, shape) for source in find_sources(config)]
    judge = Judge.create(config, parallel, *data)
    metrics = tuple(metric for metric in config.eval.metrics if metric != COPIES)
    report = {}
    for count in map(int, COUNTS.value):
        report.update(judge([data[1].images[:count]], count, metrics)[0])
    print(json.dumps({"protocol": judge.describe(count), **report}, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
