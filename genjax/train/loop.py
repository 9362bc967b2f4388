"""The training loop: which thing happens at which step, and nothing else.

The order at a step is a contract, exact resume rests on it: write the metrics, evaluate, draw,
save, take the next batch, step. All that a checkpoint's step leaves behind is on disk before the
checkpoint is.
"""

import dataclasses
import math
import signal


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
    state, start, cadence, steps_per_call, run_steps, log, evaluate, draw, save, should_stop
):
    """Trains from step `start` to `cadence.num_train_steps`.

    Args:
      state: the train state on the devices.
      start: steps done already.
      cadence: a `Cadence`; every cadence is a multiple of `steps_per_call`.
      steps_per_call: steps per dispatch, at multiples of it; single steps elsewhere.
      run_steps: (state, step, count) -> (state, metrics); dispatches, does not wait.
      log: (step, metrics or None); None where this step writes no metrics.
      evaluate: (step, state) -> metrics, a dict of floats.
      draw: (step, state).
      save: (step, state, metrics of an evaluation at this step or None).
      should_stop: step -> bool; True saves this step and returns.

    Returns:
      (state, step): where it ended.
    """
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
        saves = cadence.due(cadence.checkpoint_every_steps, step) or stop
        if (evaluates or draws or saves) and pending is not None:
            log(*pending)
            pending = None
        eval_metrics = evaluate(step, state) if evaluates else None
        if draws:
            draw(step, state)
        if saves:
            save(step, state, eval_metrics)
        if stop:
            break
    return state, step


class StopOnSignal:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second one acts as usual.

    Use as a context; `stop(step)` says whether a signal came, for `train_loop`'s `should_stop`.
    """

    def __enter__(self):
        self.received = None
        self._previous = {
            s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *exc_info):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum, frame):
        self.received = signal.Signals(signum).name
        self.__exit__()

    def stop(self, step):
        return self.received is not None
