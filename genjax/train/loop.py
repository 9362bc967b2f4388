"""The training loop: which thing happens at which step, and nothing else.

The order at a step is a contract, exact resume rests on it: write the metrics, evaluate, draw,
save, take the next batch, step. All that a checkpoint's step leaves behind is on disk before the
checkpoint is, and nothing is evaluated, drawn or saved before all its steps are known to be good.
A stop saves first: what was due at its step is made up for when the run goes on.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How many steps there are, and how often what happens (every 0 steps: only at the end)."""

    num_train_steps: int
    log_every_steps: int
    eval_every_steps: int
    sample_every_steps: int
    checkpoint_every_steps: int

    def due(self, every, step):
        """Whether something of that cadence is due after `step` steps."""
        return step == self.num_train_steps or (every > 0 and step % every == 0)

    def common_divisor(self):
        """The most steps that can go into one dispatch without missing a cadence."""
        return math.gcd(*dataclasses.astuple(self))


def train_loop(
    state,
    start,
    cadence,
    steps_per_call,
    run_steps,
    settle,
    log,
    evaluate,
    draw,
    save,
    should_stop,
    missed=(),
):
    """Trains from step `start` to `cadence.num_train_steps`.

    Args:
      state: the train state on the devices.
      start: steps done already.
      cadence: a `Cadence`; every cadence is a multiple of `steps_per_call`.
      steps_per_call: steps per dispatch, at multiples of it; single steps elsewhere.
      run_steps: (state, step, count) -> (state, metrics); dispatches, does not wait.
      settle: () -> None; returns when every step so far is known to be good, else raises.
      log: (step, metrics or None); None where this step writes no metrics.
      evaluate: (step, state) -> metrics, a dict of floats; None if a stop cut it short.
      draw: (step, state) -> bool; False if a stop cut it short.
      save: (step, state, metrics of an evaluation at this step or None).
      should_stop: step -> bool; True saves this step and returns.
      missed: which of "evaluate" and "draw" the step `start` still lacks.

    Returns:
      (state, step, stopped): where it ended, and whether because of a stop.
    """
    if "evaluate" in missed and evaluate(start, state) is None:
        return state, start, True
    if "draw" in missed and not draw(start, state):
        return state, start, True
    step, pending = start, None
    while step < cadence.num_train_steps:
        whole = step % steps_per_call == 0 and step + steps_per_call <= cadence.num_train_steps
        count = steps_per_call if whole else 1
        state, metrics = run_steps(state, step, count)
        step += count
        # The metrics of a step are fetched after the next one was dispatched: logging does not
        # stall the device.
        if pending is not None:
            log(*pending)
            pending = None
        if cadence.due(cadence.log_every_steps, step):
            pending = (step, metrics)
        else:
            log(step, None)
        stop = should_stop(step)
        evaluates = cadence.due(cadence.eval_every_steps, step)
        draws = cadence.due(cadence.sample_every_steps, step)
        saves = cadence.due(cadence.checkpoint_every_steps, step)
        if stop or evaluates or draws or saves:
            settle()
            if pending is not None:
                log(*pending)
                pending = None
        eval_metrics = None
        if evaluates and not stop:
            eval_metrics = evaluate(step, state)
            stop = eval_metrics is None
        if draws and not stop:
            stop = not draw(step, state)
        if saves or stop:
            save(step, state, eval_metrics)
        if stop:
            return state, step, True
    return state, step, False
