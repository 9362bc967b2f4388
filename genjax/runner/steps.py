"""The compiled training steps of a run, and what they cost."""

import jax

from genjax.runner.run import Run
from genjax.train.programs import CompiledStep, step_report


class Steps:
    """The compiled steps of a run, by how many of them one dispatch makes: `steps[count]`.

    Args:
      run: whose steps they are.
    """

    def __init__(self, run: Run):
        self._run, state = run, jax.eval_shape(run.init)
        self._compiled = {
            count: CompiledStep(run.parallel.compile_train_step(run.train_step, state, count))
            for count in {1, run.steps_per_call}
        }

    def __getitem__(self, count: int) -> CompiledStep:
        return self._compiled[count]

    def costs(self, images_per_second: float) -> dict[str, float]:
        """Returns what the compiler says of a step on one device, and its use of that device.

        Args:
          images_per_second: measured, of all devices.

        Returns:
          see `step_report`; {} before the first step.
        """
        parallel, per_call = self._run.parallel, self._run.steps_per_call
        costs = dict(self[per_call].costs or self[1].costs)
        if self[per_call].costs:
            # Where the steps of a dispatch are a loop, the compiler counts one pass of it.
            looped = () if parallel.platform == "cpu" else ("flops",)
            for name in {"flops", "matrix_flops"} & costs.keys() - {*looped}:
                costs[name] /= per_call
        rate = images_per_second / self._run.config.batch_size
        return step_report(costs, rate, parallel.devices[0].device_kind, parallel.size)

    def description(self) -> str:
        """Returns the costs as a sentence; "" where nothing is known."""
        costs = self.costs(0.0)
        flops, memory = costs.get("step_flops"), costs.get("step_memory_bytes")
        parts = [f"{flops / 1e9:,.4g} GFLOP"] if flops else []
        parts += [f"{memory / 1e6:,.4g} MB of memory"] if memory else []
        return f"a step on one device: {', '.join(parts)} (compiled)" if parts else ""
