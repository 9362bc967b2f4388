import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import rng
from genjax.train.parallel import Parallel
from genjax.train.state import Ema, init_state
from genjax.train.step import LossUpdate


def init(key):
    return {"w": jax.random.normal(key, (5, 3))}, {"seen": jnp.zeros(())}


def loss_fn(params, model_state, batch, rngs, train):
    error = batch["x"] @ params["w"] - 1.0 + 0.1 * rng.normal(rngs("noise"), (3,))
    loss = jnp.mean(error**2)
    return loss, ({"size": jnp.mean(jnp.abs(error))}, {"seen": model_state["seen"] + 1})


NO_EMA, SGD = Ema(), optax.sgd(0.1)
BATCH = {
    "x": np.random.RandomState(0).randn(8, 5).astype(np.float32),
    "slot": np.arange(8, dtype=np.int32),
}


def make_step(tx, ema, **options):
    """(state, batch) -> (state, metrics)."""
    update = LossUpdate(loss_fn, tx, ema, **options)
    return lambda state, batch: update(state, batch, rng.Rngs(state.rng, state.step, batch["slot"]))


def run(steps, ema=NO_EMA, tx=SGD, **options):
    parallel = Parallel.create("jit", 1)
    state = parallel.replicate(init_state(0, init, tx.init, ema))
    step = parallel.compile_train_step(make_step(tx, ema, **options), state)
    history = []
    for _ in range(steps):
        state, metrics = step(state, parallel.shard(BATCH))
        history.append(jax.device_get((state.params, metrics)))
    return state, history


def test_a_step_is_gradient_descent():
    state = init_state(0, init, optax.sgd(0.1).init, Ema())
    rngs = rng.Rngs(state.rng, 0, jnp.asarray(BATCH["slot"]))
    grads = jax.grad(lambda p: loss_fn(p, state.model_state, BATCH, rngs, True)[0])(state.params)
    after, history = run(1)
    np.testing.assert_allclose(
        after.params["w"], state.params["w"] - 0.1 * grads["w"], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(history[0][1]["grad_norm"], jnp.linalg.norm(grads["w"]), rtol=1e-5)
    assert int(after.step) == 1 and float(after.model_state["seen"]) == 1


def test_the_root_key_never_moves_and_the_noise_does():
    state, history = run(3)
    start = init_state(0, init, optax.sgd(0.1).init, Ema())
    assert (jax.random.key_data(state.rng) == jax.random.key_data(start.rng)).all()
    rngs = [rng.Rngs(start.rng, s, jnp.arange(2))("noise") for s in (0, 1)]
    assert (jax.random.key_data(rngs[0]) != jax.random.key_data(rngs[1])).any()


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulated_gradients_are_the_whole_batchs(parts):
    whole, _ = run(3)
    split, _ = run(3, accumulate_steps=parts)
    np.testing.assert_allclose(whole.params["w"], split.params["w"], rtol=1e-5, atol=1e-6)
    assert float(split.model_state["seen"]) == 3 * parts


def test_the_states_buffers_are_donated():
    tx = optax.adam(0.1)
    parallel = Parallel.create("jit", 1)
    host = init_state(0, init, tx.init, Ema(0.9))
    step = parallel.compile_train_step(make_step(tx, Ema(0.9)), host)
    state = parallel.replicate(host)
    step(state, parallel.shard(BATCH))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema_params)))
    assert not host.params["w"].is_deleted()


def test_ema_is_the_recurrence():
    decay = 0.8
    state, history = run(6, ema=Ema(decay, warmup=False))
    average = init_state(0, init, optax.sgd(0.1).init, Ema()).params["w"]
    for params, _ in history:
        average = decay * average + (1 - decay) * params["w"]
    np.testing.assert_allclose(state.ema_params["w"], average, rtol=1e-5)
    assert state.eval_params is state.ema_params


def test_ema_warm_up_forgets_the_initial_parameters():
    ema = Ema(0.9999)
    value = {"w": jnp.asarray(100.0)}
    for step in range(200):
        value = ema.update(value, {"w": jnp.asarray(1.0)}, step)
    assert abs(float(value["w"]) - 1.0) < 0.1
    late = ema.update({"w": jnp.asarray(0.0)}, {"w": jnp.asarray(1.0)}, 10**6)
    np.testing.assert_allclose(float(late["w"]), 1e-4, rtol=1e-3)


def test_ema_half_life_in_images():
    ema = Ema(half_life_images=1000, batch_size=100, warmup=False)
    value = {"w": jnp.asarray(0.0)}
    for step in range(10):  # 1,000 images
        value = ema.update(value, {"w": jnp.asarray(1.0)}, step)
    np.testing.assert_allclose(float(value["w"]), 0.5, rtol=1e-5)


def test_without_an_average_the_parameters_are_evaluated():
    state, _ = run(1)
    assert state.ema_params == {} and state.eval_params is state.params
