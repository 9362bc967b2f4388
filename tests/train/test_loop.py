from genjax.train.loop import Cadence, train_loop


def trace(start=0, stop_at=None, steps_per_call=1, missed=(), cut_short=(), **cadence):
    """What happens, in order, as (name, step) pairs."""
    values = dict(
        num_train_steps=6, log_every_steps=2, eval_every_steps=3,
        sample_every_steps=0, checkpoint_every_steps=4,
    )  # fmt: skip
    events, unsettled = [], []

    def run_steps(state, step, count):
        unsettled.append(step)
        events.append(("step" if count == 1 else f"step x{count}", step))
        return state + count, step + count  # the "metrics" are the step they are of

    def log(step, metrics):
        if metrics is not None:
            assert metrics == step
            events.append(("log", step))

    def evaluate(step, state):
        assert not unsettled
        events.append(("eval", step))
        return None if "eval" in cut_short else {"eval/x": step}

    def draw(step, state):
        assert not unsettled
        events.append(("draw", step))
        return "draw" not in cut_short

    def save(step, state, metrics):
        assert not unsettled
        events.append(("save", step, metrics))

    state, step, stopped = train_loop(
        start,
        start,
        Cadence(**{**values, **cadence}),
        steps_per_call,
        run_steps,
        unsettled.clear,
        log,
        evaluate,
        draw,
        save,
        lambda step: step == stop_at,
        missed,
    )
    assert state == step and stopped == (step == stop_at or bool(cut_short))
    return events


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
