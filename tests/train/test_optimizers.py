import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.train.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    keep_in_box,
    make_optimizer,
    make_schedule,
    orthogonalize,
    updates_done,
)


# airbench fixes the norm of kernels and has its own learning rates: it is tested below.
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "airbench"])
def test_each_optimizer_solves_a_least_squares_problem(name):
    target = {"kernel": jnp.ones((3, 3, 2, 4)), "bias": -jnp.ones(4)}
    # Muon's update has spectral norm lr whatever the gradient, and the solution lies 8.5 away.
    tx = make_optimizer(name, make_schedule(0.2 if name == "muon" else 0.05, "linear", 5, 150))
    params = jax.tree.map(jnp.zeros_like, target)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        loss = lambda p: sum(
            jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(target))
        )
        value, grads = jax.value_and_grad(loss)(params)
        searching = optax.with_extra_args_support(tx)  # arguments of a line search
        updates, state = searching.update(
            grads, state, params, value=value, grad=grads, value_fn=loss
        )
        return optax.apply_updates(params, updates), state, value

    first = None
    for _ in range(150):
        params, state, value = step(params, state)
        first = value if first is None else first
    assert float(value) < 0.02 * float(first)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_weight_decay_shrinks_kernels_and_spares_biases(name):
    tx = make_optimizer(name, lambda _: 0.1, weight_decay=0.5, momentum=0.0)
    params = {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_a_box_holds_parameters():
    tx = optax.chain(make_optimizer("sgd", lambda _: 1.0, momentum=0.0), keep_in_box(0.0, 1.0))
    params = {"a": jnp.array([0.2, 0.5, 0.9]), "b": {"c": jnp.zeros(2)}}
    grads = {"a": jnp.array([0.5, 0.1, -0.4]), "b": {"c": jnp.array([1.0, -0.3])}}
    updates, _ = tx.update(grads, tx.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_allclose(moved["a"], [0.0, 0.4, 1.0], atol=1e-7)
    np.testing.assert_allclose(moved["b"]["c"], [0.0, 0.3], atol=1e-7)


def test_clipping_bounds_the_global_norm():
    tx = make_optimizer("sgd", lambda _: 1.0, momentum=0.0, clip_norm=2.0)
    grads = {"a": jnp.full(4, 10.0), "b": jnp.full(5, -10.0)}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(optax.tree.norm(updates), 2.0, rtol=1e-5)
    np.testing.assert_allclose(updates["a"] / updates["b"][:4], -1.0, rtol=1e-5)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_warm_up_and_end_where_they_should(name):
    schedule = make_schedule(0.4, name, warmup_steps=10, num_train_steps=110)
    rates = [schedule(step) for step in range(11)]
    # No step of the warm-up does nothing, and the first one after it has the full rate.
    np.testing.assert_allclose(rates, [0.04 * n for n in range(1, 11)] + [0.4], atol=1e-6)
    middle, end = {"constant": (0.4, 0.4), "cosine": (0.2, 0.0), "linear": (0.2, 0.0)}[name]
    np.testing.assert_allclose([schedule(60), schedule(110)], [middle, end], atol=1e-6)


def test_muon_treats_a_convolution_as_a_matrix():
    tx = make_optimizer("muon", lambda _: 1.0, momentum=0.0)
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
    updates, _ = jax.jit(tx.update)({"k": kernel}, tx.init({"k": kernel}), {"k": kernel})
    values = jnp.linalg.svd(updates["k"].reshape(36, 8), compute_uv=False)
    assert values.max() / values.min() < 2.5  # orthogonalised; the gradient's own ratio is larger
    raw = jnp.linalg.svd(kernel.reshape(36, 8), compute_uv=False)
    assert raw.max() / raw.min() > values.max() / values.min()


def test_orthogonalize_brings_singular_values_near_one():
    for shape in ((12, 5), (5, 12), (8, 8)):
        u, s, v = np.linalg.svd(np.random.default_rng(0).normal(size=shape), full_matrices=False)
        out = orthogonalize(jnp.asarray(u * s @ v), steps=5)
        values = np.linalg.svd(out, compute_uv=False)
        assert 0.65 < values.min() and values.max() < 1.25
        # The singular vectors stay: out = u f(s) v is diagonal in them.
        inside = u.T @ out @ v.T
        np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("steps", [3, 5])
def test_orthogonalize_is_the_iteration_of_optax(shape, steps):
    matrix = jax.random.normal(jax.random.key(0), shape)
    tx = optax.contrib.scale_by_muon(ns_steps=steps, beta=0.0, eps=1e-7, nesterov=False)
    expected, _ = jax.jit(tx.update)(matrix, tx.init(matrix))
    result = jax.jit(orthogonalize, static_argnums=1)(matrix, steps)
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_the_speed_runs_optimizer():
    schedule = make_schedule(0.24, "linear", 0, 200)
    tx = make_optimizer("airbench", schedule, momentum=0.6, weight_decay=4e-3)
    key = jax.random.key(0)
    params = {
        "whitening_bias": jnp.ones(24),
        "group": {"kernel": jax.random.normal(key, (3, 3, 24, 64)), "bias": jnp.ones(64)},
        "head": {"kernel": jnp.ones((256, 10))},
    }
    init, update = jax.jit(tx.init), jax.jit(tx.update)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = update(zeros, init(params), params)
    # Without gradients, kernels are only scaled to the norm sqrt(out), and the rest only decays:
    # the first step of torch's Nesterov momentum with a constant d is (1 + 0.85) d.
    kernel = params["group"]["kernel"] + updates["group"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(kernel), 8.0, rtol=1e-5)
    for decayed in (updates["whitening_bias"], updates["group"]["bias"], updates["head"]["kernel"]):
        np.testing.assert_allclose(decayed, -1.85 * 4e-3, rtol=1e-5)

    # A kernel moves by an orthogonal matrix times the learning rate.
    grads = {**zeros, "group": {**zeros["group"], "kernel": jax.random.normal(key, (3, 3, 24, 64))}}
    updates, _ = update(grads, init(params), params)
    scaled = params["group"]["kernel"] * 8 / jnp.linalg.norm(params["group"]["kernel"])
    moved = (params["group"]["kernel"] + updates["group"]["kernel"] - scaled).reshape(-1, 64)
    values = np.linalg.svd(moved / 0.24, compute_uv=False)
    assert 0.4 < values.min() and values.max() < 1.4

    # The first bias learns for 3/8 of the training.
    for step, learns in ((74, True), (75, False), (199, False)):
        at = lambda x, step=step: jnp.asarray(step) if x.dtype == jnp.int32 else x
        state = jax.tree.map(at, init(params))
        grads = jax.tree.map(jnp.ones_like, params)
        updates, _ = update(grads, state, params)
        assert bool((updates["whitening_bias"] != 0).all()) == learns
        assert (updates["group"]["bias"] != 0).all()


def airbench_params():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
    return {
        "whitening_bias": jnp.ones(24),
        "group": {"kernel": kernel, "bias": jnp.ones(8)},
        "head": {"kernel": jnp.ones((8, 10))},
    }


def test_the_speed_runs_optimizer_warms_up():
    """In the warm-up every rate is a share of its peak; after it all is as without one."""
    params = airbench_params()
    grads = jax.tree.map(jnp.ones_like, params)
    options = {"momentum": 0.0, "weight_decay": 4e-3}
    warm = make_optimizer(
        "airbench", make_schedule(0.24, "linear", 4, 24), warmup_steps=4, **options
    )
    plain = make_optimizer("airbench", make_schedule(0.24, "linear", 0, 20), **options)

    def updates(tx, step):
        at = lambda x: jnp.asarray(step) if x.dtype == jnp.int32 else x
        return tx.update(grads, jax.tree.map(at, tx.init(params)), params)[0]

    vectors = lambda u: [u["whitening_bias"], u["group"]["bias"], u["head"]["kernel"]]
    peak = vectors(updates(plain, 0))
    for step in range(4):
        for own, full in zip(vectors(updates(warm, step)), peak, strict=True):
            np.testing.assert_allclose(own, full * (step + 1) / 4, rtol=1e-5)
    for step in (0, 3, 19):
        pairs = zip(*map(jax.tree.leaves, (updates(warm, step + 4), updates(plain, step))))
        for own, full in pairs:
            np.testing.assert_allclose(own, full, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_nothing_moves_at_the_learning_rate_zero(name):
    params = airbench_params()
    params["group"]["kernel"] *= 8**0.5 / jnp.linalg.norm(params["group"]["kernel"])
    tx = make_optimizer(name, make_schedule(0.0, "linear", 2, 10), warmup_steps=2, weight_decay=0.1)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    for u in jax.tree.leaves(updates):
        np.testing.assert_allclose(u, 0, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_done_are_those_that_were_not_left_out(name):
    params = airbench_params()
    tx = make_optimizer(name, make_schedule(0.1, "linear", 2, 10), skip_norm=5.0)
    state, done = tx.init(params), []
    for size in (0.01, 10.0, 0.01, jnp.nan):
        grads = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), params)
        value_fn = lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(p))
        extra = {"value": 1.0, "grad": grads, "value_fn": value_fn} if name == "lbfgs" else {}
        _, state = tx.update(grads, state, params, **extra)
        done.append(int(updates_done(state)))
    assert done == [1, 1, 2, 2]


def test_large_gradients_change_nothing():
    tx = make_optimizer("adam", lambda step: 0.1, skip_norm=1.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    state, update = tx.init(params), jax.jit(tx.update)
    for size, moves in ((0.1, True), (10.0, False), (0.1, True)):
        grads = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), params)
        updates, new = update(grads, state, params)
        changed = [bool((u != 0).any()) for u in jax.tree.leaves(updates)]
        assert changed == [moves] * 2
        same = jax.tree.map(lambda a, b: bool((a == b).all()), new, state)
        assert all(jax.tree.leaves(same)) != moves
        state = new
