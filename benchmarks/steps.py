"""Steps of a run, one by one, without the loop around them."""

import jax

from genjax.runner.batches import Batches
from genjax.runner.run import Run
from genjax.train.signals import StopOnSignal


def step_metrics(run: Run, steps: int) -> list[dict[str, float]]:
    """Trains from the start; returns the metrics of each of the first steps."""
    step_fn = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
    state, rows = run.start(), []
    with StopOnSignal() as signals:
        batches = Batches(run, signals)
        for step in range(steps):
            arguments, _ = batches.take(step, step, 1)
            state, (metrics, _) = step_fn(state, *arguments)
            rows.append({name: float(x) for name, x in run.parallel.fetch(metrics).items()})
        batches.close()
    return rows
