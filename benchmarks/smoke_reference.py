"""Computes a smoke's numbers again: `benchmarks/smokes.py` compares them.

The evaluation in float32; the first steps in the dtype of the run, since what rounding does to
them is not bounded: the colours of grey images whiten to noise, which a normalisation enlarges.

python -m benchmarks.smoke_reference --name=NAME --run=WORKDIR
"""

import importlib
import json

from absl import flags

from benchmarks.steps import step_metrics
from genjax.runner.command import run_main
from genjax.runner.evaluator import FullEvaluator
from genjax.runner.restore import restored_run
from genjax.runner.run import Run, set_up_process

NAME = flags.DEFINE_string("name", None, "The config's name.", required=True)
RUN = flags.DEFINE_string("run", None, "The workdir of its smoke.", required=True)


def main(argv: list[str]) -> None:
    """Prints {name: number} and the run's compute_dtype as one line of JSON."""
    del argv
    config = importlib.import_module(f"configs.{NAME.value}").get_config("smoke")
    set_up_process(config)
    run = Run.build(config)
    first = step_metrics(run, run.cadence.log_every_steps)[-1]
    numbers = {f"train/{name}": x for name, x in first.items()}
    dtype, config.compute_dtype = config.compute_dtype, "float32"
    run, state, _ = restored_run(config, RUN.value, "latest", ("eval.", "compute_dtype"))
    metrics, _ = FullEvaluator(run)(run.eval_tree(state), last=True)
    numbers |= {name: float(x) for name, x in metrics.items()}
    print(json.dumps({"compute_dtype": dtype, **numbers}))


if __name__ == "__main__":
    run_main(main)
