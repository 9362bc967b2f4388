import os
import signal

import pytest

from genjax.train.loop import Cadence, StopOnSignal, train_loop


def trace(start=0, stop_at=None, steps_per_call=1, **cadence):
    """What happens, in order, as (name, step) pairs."""
    values = dict(
        num_train_steps=6, log_every_steps=2, eval_every_steps=3,
        sample_every_steps=0, checkpoint_every_steps=4,
    )  # fmt: skip
    events = []

    def run_steps(state, step, count):
        events.append(("step" if count == 1 else f"step x{count}", step))
        return state + count, step + count  # the "metrics" are the step they are of

    def log(step, metrics):
        if metrics is not None:
            assert metrics == step
            events.append(("log", step))

    def evaluate(step, state):
        events.append(("eval", step))
        return {"eval/x": step}

    state, step = train_loop(
        start,
        start,
        Cadence(**{**values, **cadence}),
        steps_per_call,
        run_steps,
        log,
        evaluate,
        lambda step, state: events.append(("draw", step)),
        lambda step, state, metrics: events.append(("save", step, metrics)),
        lambda step: step == stop_at,
    )
    assert state == step
    return events


def test_the_order_of_things():
    assert trace() == [
        ("step", 0), ("step", 1), ("step", 2), ("log", 2), ("eval", 3),
        ("step", 3), ("log", 4), ("save", 4, None), ("step", 4), ("step", 5),
        ("log", 6), ("eval", 6), ("draw", 6), ("save", 6, {"eval/x": 6}),
    ]  # fmt: skip


def test_a_stop_saves_its_step_and_a_resume_does_the_rest():
    whole = [e for e in trace() if e[0] != "save"]
    for stop in range(1, 6):
        first = trace(stop_at=stop)
        assert first[-1] == ("save", stop, {"eval/x": 3} if stop == 3 else None)
        both = [e for e in first + trace(start=stop) if e[0] != "save"]
        assert sorted(both) == sorted(whole)


def test_metrics_are_on_disk_before_their_checkpoint():
    for every in (1, 2, 3):
        events = trace(checkpoint_every_steps=every, log_every_steps=1)
        for i, event in enumerate(events):
            if event[0] == "save":
                logged = [e[1] for e in events[:i] if e[0] == "log"]
                assert logged == list(range(1, event[1] + 1))


def test_several_steps_a_call_and_single_ones_after_an_odd_resume():
    cadence = dict(
        num_train_steps=8, log_every_steps=4, eval_every_steps=8,
        sample_every_steps=0, checkpoint_every_steps=8,
    )  # fmt: skip
    assert Cadence(**cadence).common_divisor() == 4
    steps = [e for e in trace(steps_per_call=4, **cadence) if e[0].startswith("step")]
    assert steps == [("step x4", 0), ("step x4", 4)]
    steps = [e for e in trace(start=3, steps_per_call=4, **cadence) if e[0].startswith("step")]
    assert steps == [("step", 3), ("step x4", 4)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_once_and_acts_the_second_time(signum):
    def on_second(*_):
        raise TimeoutError("the second one")

    before = signal.signal(signum, on_second)
    try:
        with StopOnSignal() as signals:
            assert not signals.stop(1)
            os.kill(os.getpid(), signum)
            assert signals.stop(2) and signals.received == signum.name
            with pytest.raises(TimeoutError):
                os.kill(os.getpid(), signum)
        assert signal.getsignal(signum) is on_second
    finally:
        signal.signal(signum, before)
