"""One-step losses at their known solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import consistency_cifar10
from experiments.diffusion import one_step as family
from genjax.diffusion.one_step import (
    consistency_earlier,
    consistency_loss,
    consistency_sample,
    meanflow_loss,
    meanflow_sample,
    meanflow_times,
)
from genjax.errors import UserError
from genjax.runner.config import check_config
from tests.diffusion.gaussian import CASES

IMAGE = jnp.asarray([[0.5, -0.2, 0.1]])


def exact_u(x, r, t):
    """The mean velocity where all data is one image: paths are straight, so it is v itself."""
    del r
    return (x - IMAGE) / t[:, None]


def test_meanflow_has_no_loss_at_its_solution_and_some_elsewhere():
    eps = jax.random.normal(jax.random.key(0), (5, 3))
    x0 = jnp.repeat(IMAGE, 5, 0)
    r, t = meanflow_times(jax.random.split(jax.random.key(1), 5), flow_ratio=0.0)
    loss = jax.jit(meanflow_loss, static_argnums=0)
    _, error = loss(exact_u, x0, eps, r, t)
    np.testing.assert_allclose(error, 0.0, atol=1e-9)
    _, error = loss(lambda x, r, t: exact_u(x, r, t) * 1.1, x0, eps, r, t)
    assert (error > 1e-3).all()


def test_meanflow_identity_holds_where_the_velocity_bends():
    # v(t) = t^2 along every path: u = (t^3 - r^3) / (3 (t - r)), and x_t is the integral of v. The
    # loss assumes the straight path, so the identity is also checked without it.
    u = lambda x, r, t: ((t**2 + t * r + r**2) / 3)[:, None] + 0 * x
    r, t = jnp.asarray([0.2]), jnp.asarray([0.7])
    average, slope = jax.jvp(
        u, (jnp.zeros((1, 1)), r, t), (t[:, None] ** 2, jnp.zeros(1), jnp.ones(1))
    )
    np.testing.assert_allclose(average, t**2 - (t - r) * slope, rtol=1e-5)
    x0 = jnp.zeros((1, 1))
    _, error = meanflow_loss(u, x0, t[:, None] ** 2, r, t)  # eps - x0 = v(t)
    np.testing.assert_allclose(error, 0.0, atol=1e-10)


def test_meanflow_weight_is_adaptive():
    x0, eps = jnp.zeros((2, 3)), jnp.asarray([[1.0] * 3, [10.0] * 3])
    t = jnp.full(2, 0.5)
    loss, error = meanflow_loss(lambda x, r, t: 0 * x, x0, eps, t, t)
    np.testing.assert_allclose(loss, 1.0, rtol=1e-3)
    np.testing.assert_allclose(error, [1.0, 100.0])


def test_meanflow_times_are_in_order_and_often_equal():
    r, t = meanflow_times(jax.random.split(jax.random.key(2), 4000))
    assert (r <= t).all() and (r >= 0).all() and (t <= 1).all()
    np.testing.assert_allclose(jnp.mean(r == t), 0.75, atol=0.03)


def test_meanflow_samples_in_any_number_of_steps():
    x = jax.random.normal(jax.random.key(3), (4, 3))
    for steps in (1, 2, 5):
        out = meanflow_sample(exact_u, x, steps)
        np.testing.assert_allclose(out, jnp.repeat(IMAGE, 4, 0), atol=1e-5)


def test_consistency_pairs_come_closer():
    s = jnp.asarray([0.01, 0.5, 5.0, 80.0])
    pairs = [np.asarray(consistency_earlier(s, stage)) for stage in range(9)]
    np.testing.assert_array_equal(pairs[0], 0.0)
    assert all((a <= b).all() for a, b in zip(pairs, pairs[1:]))
    assert (pairs[8] < s).all() and (pairs[8] > 0.95 * s).all()


@pytest.mark.parametrize("stage", [0, 8, 19, 24, 30, 60, 126])
def test_consistency_pairs_never_meet(stage):
    s = jnp.asarray(np.geomspace(2e-3, 80, 2000), jnp.float32)
    r = consistency_earlier(s, jnp.float32(stage))
    assert (r < s).all() and (r >= 0).all()
    exact = np.float64(s) * np.minimum((1 + 8 / (1 + np.exp(np.float64(s)))) / 2.0**stage, 1)
    if stage < 20:  # as many as a config may have
        np.testing.assert_allclose(np.float64(s) - np.float64(r), exact, rtol=0.1)


@pytest.mark.parametrize("stage", [8, 19, 30, 126])
def test_consistency_training_is_finite_in_every_stage(stage):
    x0, eps = jax.random.normal(jax.random.key(0), (2, 6, 4))
    s = jnp.geomspace(2e-3, 80, 6)

    def loss(scale):
        denoise = lambda x, s: scale * x / (1 + s[:, None])
        r = consistency_earlier(s, jnp.float32(stage))
        return consistency_loss(denoise, x0, eps, s, r).sum()

    value, slope = jax.value_and_grad(loss)(1.0)
    assert np.isfinite(value) and np.isfinite(slope)
    # Two levels that are equal, as of any caller.
    assert np.isfinite(consistency_loss(lambda x, s: x, x0, eps, s, s)).all()


def test_stages_that_numbers_do_not_resolve_are_refused():
    config = consistency_cifar10.get_config("smoke")
    config.objective.stages = 25
    with pytest.raises(UserError, match=r"config.objective.stages=25 must be in \[1, 20\]"):
        check_config(config, family.FIELDS, 1)


def test_consistency_has_no_loss_at_its_solution():
    eps = jax.random.normal(jax.random.key(4), (4, 3))
    s, r = jnp.asarray([0.5, 1.0, 2.0, 3.0]), jnp.asarray([0.0, 0.5, 1.0, 2.9])
    x0 = jnp.repeat(IMAGE, 4, 0)
    known = lambda x, s: x0 + 0 * x
    np.testing.assert_allclose(consistency_loss(known, x0, eps, s, r), 0.0, atol=1e-4)
    identity = lambda x, s: x  # x_s - x_r = (s - r) eps
    loss = consistency_loss(identity, x0, eps, s, r)
    np.testing.assert_allclose(loss, jnp.linalg.norm(eps, axis=1), rtol=1e-3)


def test_consistency_samples_in_one_and_in_two_steps():
    process, keys = CASES["edm"], jax.random.split(jax.random.key(5), 3)
    shrunk = lambda x, t: x / jnp.sqrt(1 + t**2)
    draw = jax.jit(lambda times: consistency_sample(shrunk, process, times, keys, (3,)))
    one, two = draw(jnp.asarray([80.0])), draw(jnp.asarray([80.0, 1.0]))
    assert np.abs(np.asarray(one)).max() < 4 and (one != two).all()
