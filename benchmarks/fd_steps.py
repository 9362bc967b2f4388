"""Fréchet distance of one trained diffusion model for several samplers and numbers of steps.

Every combination samples from the same noises and is judged by the protocol of the config.

python -m benchmarks.fd_steps --config=configs/diffusion_mnist.py --workdir=DIR
    [--samplers=euler,heun,dpmpp_2m] [--steps=5,10,20,50] [--num=1000]
"""

import json
import time

from absl import flags
from ml_collections import config_flags

from experiments.diffusion.denoisers import make_process
from genjax.diffusion.samplers import SAMPLERS, make_sampler
from genjax.files import user_path
from genjax.runner.command import run_main
from genjax.runner.evaluator import SampleJudge
from genjax.runner.family import completed
from genjax.runner.restore import restored_run
from genjax.runner.run import Run, set_up_process

DEFAULT = "configs/diffusion_mnist.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
WORKDIR = flags.DEFINE_string("workdir", None, "Of the trained run.", required=True)
USED = flags.DEFINE_list("samplers", ["euler", "heun", "dpmpp_2m"], ", ".join(SAMPLERS))
STEPS = flags.DEFINE_list("steps", ["5", "10", "20", "50"], "Numbers of steps.")
NUM = flags.DEFINE_integer("num", 1000, "Images of each combination.")


def main(argv: list[str]) -> None:
    """Prints a line of JSON for every combination."""
    del argv
    config = CONFIG.value
    set_up_process(config)
    config.eval.num_samples = NUM.value
    run, state, _ = restored_run(config, user_path(WORKDIR.value, "--workdir"), "latest")
    tree = run.eval_tree(state)
    for name in USED.value:
        for num_steps in map(int, STEPS.value):
            config.sample.sampler, config.sample.num_steps = name, num_steps
            run = Run.build(completed(config))
            sampler = make_sampler(name, make_process(run.config))
            start = time.perf_counter()
            metrics, _ = SampleJudge(run)(tree, NUM.value, ("fd",))
            row = {"sampler": name, "schedule": config.sample.schedule, "num_steps": num_steps}
            row["network_evaluations"] = num_steps * sampler.evaluations
            row |= {**metrics, "seconds": time.perf_counter() - start}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    run_main(main, DEFAULT)
