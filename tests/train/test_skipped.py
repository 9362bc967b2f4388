"""Steps that `optim.skip_norm` leaves out: counted, frozen, and seen in the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.data.transforms import Transform
from genjax.rng import Rngs
from genjax.runner.health import SkippedSteps
from genjax.train.optimizers import make_optimizer, make_schedule
from genjax.train.parallel import Parallel
from genjax.train.state import Ema, init_state
from genjax.train.step import LossUpdate, TrainStep

SCHEDULE = make_schedule(0.1, "linear", 4, 20)
TX = make_optimizer("adam", SCHEDULE, skip_norm=1.0)
EMA = Ema(0.9)
SMALL, LARGE = 0.1, 10.0  # gradients


class Same(Transform):
    def __call__(self, batch, rngs, train):
        return batch


SAME = Same("unit", "none", 0, 4, 4)


def loss_fn(params, model_state, batch, rngs, train):
    loss = jnp.mean(batch["x"]) * jnp.sum(params["w"])
    return loss, ({}, {"seen": model_state["seen"] + 1})


def init(key):
    return {"w": jnp.ones(1)}, {"seen": jnp.zeros(())}


def history(sizes, kind="jit", policy="raise"):
    """[(state, metrics)] after each step, on gradients of those sizes."""
    parallel = Parallel.create(kind, 1)
    step = TrainStep(LossUpdate(loss_fn, TX, EMA), SAME, SCHEDULE, policy, True)
    host = init_state(0, init, TX.init, EMA)
    compiled, state = parallel.compile_train_step(step, host), parallel.replicate(host)
    found = []
    for size in sizes:
        batch = {"x": np.full(4, size, np.float32), "slot": np.arange(4, dtype=np.int32)}
        state, (metrics, _) = compiled(state, parallel.shard(batch))
        found.append(jax.device_get((parallel.to_local(state), parallel.fetch(metrics))))
    return found


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_step_left_out_changes_nothing_but_the_counters(kind):
    found = history([SMALL, LARGE, LARGE, SMALL], kind)
    expected = history([SMALL, SMALL], kind)
    assert [int(m["skipped_steps"]) for _, m in found] == [0, 1, 2, 2]
    rates = [float(np.ravel(m["lr"])[-1]) for _, m in found]
    # The rate of the step that is tried again and again: the warm-up waits.
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.05, 0.05], rtol=1e-6)
    for i, j in ((0, 0), (1, 0), (2, 0), (3, 1)):
        after, wanted = found[i][0], expected[j][0]
        assert int(after.step) == i + 1 and int(after.skipped) == [0, 1, 2, 2][i]
        parts = lambda s: (s.params, s.opt_state, s.ema_params, s.model_state)
        jax.tree.map(np.testing.assert_array_equal, parts(after), parts(wanted))


def test_one_that_is_not_finite_is_counted_once():
    found = history([SMALL, np.nan, LARGE, SMALL], policy="skip")
    assert [int(m["skipped_steps"]) for _, m in found] == [0, 1, 2, 2]


def test_without_skipping_there_is_no_such_metric():
    step = TrainStep(LossUpdate(loss_fn, TX, EMA), SAME, SCHEDULE)
    batch = {"x": jnp.ones(4), "slot": jnp.arange(4)}
    _, (metrics, _) = step(init_state(0, init, TX.init, EMA), batch)
    assert "skipped_steps" not in metrics


def test_of_several_optimizers_each_freezes_its_own():
    """A game of two: "a" has one update a step and the average, "b" has two updates."""
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}

    def update(state, batch, rngs):
        params, opt_state = dict(state.params), dict(state.opt_state)
        for name, size in (("b", "b1"), ("b", "b2"), ("a", "a")):
            updates, opt_state[name] = TX.update(batch[size], opt_state[name], params[name])
            params[name] = optax.apply_updates(params[name], updates)
        average = EMA.update(state.ema_params, {"a": params["a"]}, state.updates)
        state = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, ema_params=average
        )
        return state, {"grads": {}}

    step = TrainStep(
        update,
        SAME,
        SCHEDULE,
        skips_large=True,
        updates_per_step=(("a", 1), ("b", 2)),
    )
    state = init_state(
        0,
        lambda key: (params, {}),
        lambda params: {k: TX.init(v) for k, v in params.items()},
        EMA,
        lambda params: {"a": params["a"]},
    )
    sizes = [
        (SMALL, SMALL, SMALL),
        (LARGE, SMALL, SMALL),
        (SMALL, LARGE, SMALL),
        (SMALL, LARGE, LARGE),
        (SMALL, SMALL, SMALL),
    ]
    found, averages = [], []
    for a, b1, b2 in sizes:
        batch = {"a": a, "b1": b1, "b2": b2, "slot": jnp.arange(4)}
        batch = {k: jnp.full(1, v) if k != "slot" else v for k, v in batch.items()}
        state, (metrics, _) = jax.jit(step)(state, batch)
        found.append({k: float(v) for k, v in metrics.items()})
        averages.append(float(state.ema_params["a"][0]))
    assert [m["skipped_steps"] for m in found] == [0, 1, 2, 3, 3]
    assert [m["skipped_updates_a"] for m in found] == [0, 1, 0, 0, 0]
    assert [m["skipped_updates_b"] for m in found] == [0, 0, 1, 2, 0]
    np.testing.assert_allclose([m["lr"] for m in found], [0.025, 0.05, 0.05, 0.075, 0.1], rtol=1e-6)
    assert averages[1] == averages[0] and averages[2] != averages[1]


def test_it_says_what_was_left_out_since_it_last_said(capsys):
    told = SkippedSteps(2.5, 10, 3)
    for step, skipped in ((20, 3), (30, 7), (40, 7), (50, 8)):
        told.update(step, {"train/skipped_steps": float(skipped)})
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: 4 of the steps 21 to 30 are left out, 7 in all")
    assert "config.optim.skip_norm=2.5" in first and second.startswith("warning: 1 of the steps 41")
    SkippedSteps(0.0, 0, 0).update(10, {})  # a run without it has no such metric


def test_the_average_grows_shorter_only_by_updates():
    """Its warm-up counts what it averaged."""
    state = init_state(0, init, TX.init, EMA)
    state = state.replace(step=jnp.int32(100), skipped=jnp.int32(100))
    batch = {"x": jnp.full(4, SMALL), "slot": jnp.arange(4)}
    rngs = Rngs(state.rng, state.step, batch["slot"])
    late, _ = LossUpdate(loss_fn, TX, EMA)(state, batch, rngs)
    fresh = state.replace(step=jnp.int32(0), skipped=jnp.int32(0))
    first, _ = LossUpdate(loss_fn, TX, EMA)(fresh, batch, rngs)
    np.testing.assert_array_equal(late.ema_params["w"], first.ema_params["w"])
