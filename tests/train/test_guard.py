from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.devices import tracing_for
from genjax.rng import Rngs
from genjax.train.guard import NotFinite, all_finite, checked_names, guard
from genjax.train.parallel import Parallel
from genjax.train.state import Ema, init_state
from genjax.train.step import LossUpdate

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))


TREES = ("params", "model_state", "opt_state", "ema_params")


def init(key):
    return {"a": jnp.ones(3), "b": jnp.ones(2)}, {}


def loss_fn(params, model_state, batch, rngs, train):
    # sqrt(0) is finite and its derivative is not: one gradient, and no metric, goes wrong.
    loss = jnp.sum(params["a"] ** 2) + jnp.mean(jnp.sqrt(batch["x"])) * 0
    loss += jnp.mean(jnp.sqrt(batch["x"][:, None] * params["b"] ** 2))
    return loss, ({"twice": 2 * loss}, model_state)


def steps(policy, xs, kind="jit"):
    """[(state, metrics, health)] after each step, on the batches x = xs[i]."""
    parallel = Parallel.create(kind, 1)
    update = LossUpdate(loss_fn, TX, Ema(0.9))
    advance = lambda state, batch: update(state, batch, Rngs(state.rng, 0, batch["slot"]))

    def guarded(state, batch):
        return guard(state, *advance(state, batch), jnp.zeros((), bool), policy)

    state = init_state(0, init, TX.init, Ema(0.9))
    batch = {"x": np.ones(4, np.float32), "slot": np.arange(4, dtype=np.int32)}
    names = checked_names(advance, state, jax.tree.map(jnp.asarray, batch))
    step = parallel.compile_train_step(guarded, state)
    state, history = parallel.replicate(state), []
    for x in xs:
        batch["x"] = np.full(4, x, np.float32)
        state, (metrics, health) = step(state, parallel.shard(batch))
        history.append(
            jax.device_get((parallel.to_local(state), *parallel.fetch((metrics, health))))
        )
    return names, history


def wrong(names, health):
    return [n for n, ok in zip(names, health[:-1], strict=True) if not ok]


def test_everything_is_finite_until_it_is_not():
    names, history = steps("raise", [1.0, 1.0])
    assert all(wrong(names, health) == [] for _, _, health in history)
    assert not history[0][2][-1]  # nobody asked to stop
    assert "grads" not in history[0][1]


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_the_metric_and_the_leaf_are_named_at_their_step(kind):
    names, history = steps("raise", [1.0, 0.0, np.nan], kind)
    assert wrong(names, history[0][2]) == []
    found = wrong(names, history[1][2])
    # The loss is finite; the gradient of b is not, and clipping spreads it to a's update.
    assert "metrics['loss']" not in found and "metrics['grad_norm']" in found
    assert "grads['b']" in found and "grads['a']" not in found
    assert {"params['a']", "params['b']", "ema_params['b']"} < set(found)
    assert "metrics['loss']" in wrong(names, history[2][2])


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_skipping_changes_nothing_but_the_counters(kind):
    _, history = steps("skip", [1.0, 0.0, np.nan, 1.0], kind)
    _, expected = steps("skip", [1.0, 1.0], kind)
    good, bad = history[0][0], history[2][0]
    assert int(bad.step) == 3 and int(bad.skipped) == 2
    same = jax.tree.map(np.array_equal, (good.params, good.opt_state), (bad.params, bad.opt_state))
    assert all(jax.tree.leaves(same))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, good.ema_params, bad.ema_params)))
    assert [int(m["skipped_steps"]) for _, m, _ in history] == [0, 1, 2, 2]
    after = history[3][0].params["a"]
    np.testing.assert_array_equal(after, expected[1][0].params["a"])


LEAVES = [
    "metrics['loss']",
    "grads['a']",
    "params['b']",
    "model_state['mean']",
    "opt_state[1][0].mu['a']",
    "opt_state[1][0].nu['b']",
    "ema_params['b']",
]


@pytest.fixture(scope="module")
def outcome():
    """A state and metrics, and the compiled guard's health of both."""
    state = init_state(0, init, TX.init, Ema(0.9))
    state = state.replace(model_state={"mean": jnp.zeros(2, jnp.bfloat16)})
    metrics = {"loss": jnp.ones(()), "grads": state.params}
    names = checked_names(lambda *both: both, state, metrics)
    guarded = jax.jit(lambda *both: guard(both[0], *both, jnp.ones((), bool), "raise")[1][1])
    return names, state, metrics, guarded


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_number_anywhere_is_found_at_its_step_and_named_alone(outcome, leaf, value):
    names, state, metrics, guarded = outcome

    def poisoned(tree, prefix):
        def one(path, x):
            is_it = prefix + jax.tree_util.keystr(path) == leaf
            return x.at[(-1,) * x.ndim].set(value) if is_it else x

        return jax.tree_util.tree_map_with_path(one, tree)

    grads = poisoned(metrics["grads"], "grads")
    bad_metrics = {**poisoned({"loss": metrics["loss"]}, "metrics"), "grads": grads}
    trees = {name: poisoned(getattr(state, name), name) for name in TREES}
    health = np.asarray(guarded(state.replace(**trees), bad_metrics))
    assert wrong(names, health) == [leaf] and health[-1]
    assert wrong(names, np.asarray(guarded(state, metrics))) == []


def test_what_is_on_one_device_alone_is_named_on_all(python):
    code = """
import jax, jax.numpy as jnp, numpy as np
from genjax.devices import AXIS
from genjax.train.guard import guard
from genjax.train.state import Ema, init_state
state = init_state(0, lambda key: ({"a": jnp.ones(3)}, {}), lambda params: {}, Ema())
def step(x):
    return guard(state, state, {"loss": x, "other": 1.0 * x}, jnp.zeros((), bool), "skip")
new, (metrics, health) = jax.pmap(step, axis_name=AXIS)(np.array([1, np.nan], np.float32))
assert np.array_equal(health, [[False, False, True, False]] * 2), health
assert new.skipped.tolist() == [1, 1]
"""
    out = python(code, devices=2)
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_step_has_a_reduction_for_each_shape_and_those_of_leaves_run_only_when_needed(platform):
    params = {str(i): jnp.ones((2, 3 + i % 2)) for i in range(8)}
    state = init_state(0, lambda key: (params, {}), TX.init, Ema(0.9))
    check = lambda state: guard(state, state, {"x": jnp.ones(())}, jnp.ones((), bool), "raise")
    with tracing_for(SimpleNamespace(platform=platform)):
        equations = jax.make_jaxpr(check)(state).eqns
    shapes = {(), (2, 3), (2, 4)}
    assert sum(e.primitive.name.startswith("reduce_") for e in equations) == len(shapes)
    (branches,) = (e.params["branches"] for e in equations if e.primitive.name == "cond")
    counts = [str(b).count("reduce_and") for b in branches]
    assert counts == [4 * 8 + 1, 0]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (300,), (3, 1), (2, 3, 5, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_the_largest_numbers_are_finite_and_one_infinity_anywhere_is_not(shape, dtype):
    largest = np.full(shape, jnp.finfo(dtype).max, dtype)
    check = jax.jit(lambda x: all_finite([jnp.ones(3), x, jnp.zeros(shape)]))
    assert check(largest) and check(-largest)
    for i in range(largest.size):
        for bad in (np.inf, -np.inf, np.nan):
            x = largest.copy()
            x.flat[i] = bad
            assert not check(x)


def test_the_message_says_step_names_and_examples():
    text = str(NotFinite(7, [f"params['{i}']" for i in range(9)], np.arange(20)))
    assert text.startswith("step 7: not finite: params['0'], ") and "5 more" in text
    assert "(examples 0, 1, 2, 3, 4, 5, 6, 7, ...)" in text
