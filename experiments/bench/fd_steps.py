"""Fréchet distance of one trained diffusion model against samplers and their numbers of steps.

Every cell draws the same images' noises and judges them by the protocol of the config.

python -m experiments.bench.fd_steps --config=configs/diffusion_mnist.py --workdir=DIR
    [--samplers=euler,heun,dpmpp_2m] [--steps=5,10,20,50] [--num=1000]
"""

import json
import time

from absl import flags
from ml_collections import config_flags

from experiments.command import run_main
from experiments.denoisers import make_process
from experiments.evaluation import make_judge, restored
from experiments.run import Run, set_up_process
from genjax.diffusion.samplers import SAMPLERS, make_sampler

DEFAULT = "configs/diffusion_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's.", required=True)
USED = flags.DEFINE_list("samplers", ["euler", "heun", "dpmpp_2m"], ", ".join(SAMPLERS))
STEPS = flags.DEFINE_list("steps", ["5", "10", "20", "50"], "Steps of a sampler.")
NUM = flags.DEFINE_integer("num", 1000, "Images of each cell.")


def main(_):
    set_up_process()
    config = CONFIG.value
    config.eval.num_samples = NUM.value
    run, state, _ = restored(config, WORKDIR.value, "latest")
    tree = run.eval_tree(state)
    for name in USED.value:
        for num_steps in map(int, STEPS.value):
            config.sample.sampler, config.sample.num_steps = name, num_steps
            run = Run.build(config)
            sampler = make_sampler(name, make_process(config))
            began = time.perf_counter()
            found, _ = make_judge(run)(tree, NUM.value, ("fd",))
            row = {"sampler": name, "schedule": config.sample.schedule, "num_steps": num_steps}
            row["network_evaluations"] = num_steps * sampler.evaluations
            print(json.dumps({**row, **found, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    run_main(main, DEFAULT)
