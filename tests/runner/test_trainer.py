"""The order in which the trainer does things, as a trace."""

import types

from genjax.runner.trainer import Trainer
from genjax.train.cadence import Cadence


class Traced(Trainer):
    """A trainer whose state is its step, and which notes what it would do."""

    def __init__(self, start, stop_at, steps_per_call, cut_short, cadence):
        self.events, self.unchecked = [], []
        self.stop_at, self.cut_short, self.cadence = stop_at, cut_short, cadence
        self.first_step = start
        self.run = types.SimpleNamespace(steps_per_call=steps_per_call)
        self.position = types.SimpleNamespace(state=start, step=start, data_offset=0)
        self.record = types.SimpleNamespace(before_dispatch=lambda step: None)
        self.batches = types.SimpleNamespace(take=lambda at, step, count: ((count,), [step]))
        self.health = types.SimpleNamespace(check=self.unchecked.clear)
        self.steps = {1: self.dispatch, steps_per_call: self.dispatch}

    def dispatch(self, state, count):
        self.unchecked.append(state)
        self.events.append(("step" if count == 1 else f"step x{count}", state))
        return state + count, (state + count, None)  # the "metrics" are the step they are of

    def after_dispatch(self, indices, health):
        assert self.position.state == self.position.step

    def should_stop(self):
        return self.position.step == self.stop_at

    def write(self, step, metrics):
        if metrics is not None:
            assert metrics == step
            self.events.append(("log", step))

    def evaluate(self):
        assert not self.unchecked
        self.events.append(("eval", self.position.step))
        return None if "eval" in self.cut_short else {"eval/x": self.position.step}

    def draw(self):
        assert not self.unchecked
        self.events.append(("draw", self.position.step))
        return "draw" not in self.cut_short

    def save(self, metrics):
        assert not self.unchecked
        self.events.append(("save", self.position.step, metrics))


def trace(start=0, stop_at=None, steps_per_call=1, missed=(), cut_short=(), **cadence):
    """What happens, in order, as (name, step) pairs."""
    values = dict(
        num_train_steps=6, log_every_steps=2, eval_every_steps=3,
        sample_every_steps=0, checkpoint_every_steps=4,
    )  # fmt: skip
    trainer = Traced(start, stop_at, steps_per_call, cut_short, Cadence(**{**values, **cadence}))
    finished = trainer.loop(missed)
    at_end = trainer.position.step == trainer.cadence.num_train_steps
    stopped = trainer.position.step == stop_at or bool(cut_short)
    assert finished == (not stopped) and (at_end or stopped)
    return trainer.events


def test_the_order_of_things():
    assert trace() == [
        ("step", 0), ("step", 1), ("step", 2), ("log", 2), ("eval", 3),
        ("step", 3), ("log", 4), ("save", 4, None), ("step", 4), ("step", 5),
        ("log", 6), ("eval", 6), ("draw", 6), ("save", 6, {"eval/x": 6}),
    ]  # fmt: skip


def test_a_stop_saves_its_step_first_and_a_resume_does_the_rest():
    whole = [e for e in trace() if e[0] != "save"]
    for stop in range(1, 7):
        first = trace(stop_at=stop)
        assert first[-1] == ("save", stop, None)
        missed = {3: ("evaluate",), 6: ("evaluate", "draw")}.get(stop, ())
        both = [e for e in first + trace(start=stop, missed=missed) if e[0] != "save"]
        assert sorted(both) == sorted(whole)


def test_a_stop_in_an_evaluation_or_a_drawing_saves_at_once():
    assert trace(cut_short=("eval",))[-2:] == [("eval", 3), ("save", 3, None)]
    saved = ("save", 4, None)
    options = dict(sample_every_steps=4, eval_every_steps=4)
    assert trace(cut_short=("eval",), **options)[-2:] == [("eval", 4), saved]
    cut = trace(cut_short=("draw",), **options)
    assert cut[-3:] == [("eval", 4), ("draw", 4), ("save", 4, {"eval/x": 4})]
    # What was missed is cut short again: there is nothing new to save.
    assert trace(start=4, missed=("evaluate",), cut_short=("eval",)) == [("eval", 4)]


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
