import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import vdvae

KEY = jax.random.key(0)
NETWORK = vdvae.VdVae((4, 4, 1), 2, (4,), (0, 1), (1, 1), 8, 4, 2)


def initial(network):
    return jax.jit(functools.partial(vdvae.init, network))(KEY)


@pytest.fixture(scope="module")
def params():
    return initial(NETWORK)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda params, *args: NETWORK.apply({"params": params}, *args))


def test_the_prior_begins_as_the_standard_normal_and_every_level_at_its_size(params, apply):
    keys = jax.random.split(KEY, 2)
    outputs, levels = apply(params, keys, jnp.ones((2, 4, 4, 1)))
    assert outputs.shape == (2, 4, 4, 2)
    assert [level["z"].shape for level in levels] == [(2, n, n, 2) for n in (1, 4)]
    for level in levels:
        for p in level["p"]:
            np.testing.assert_array_equal(p, 0)
        assert jnp.abs(level["q"][0]).max() > 0


def test_levels_below_the_chosen_ones_do_not_see_the_image(params, apply):
    # Off its initial values, where the prior ignores the latents above.
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)
    keys = jax.random.split(KEY, 1)
    dark, light = jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))
    show = lambda x, count: np.asarray(apply(params, keys, x, count)[0])
    np.testing.assert_array_equal(show(dark, 0), show(light, 0))
    for count in (1, 2):
        assert np.abs(show(dark, count) - show(light, count)).max() > 1e-4
    np.testing.assert_allclose(show(dark, 2), apply(params, keys, dark)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(show(dark, 0), apply(params, keys)[0], rtol=1e-5, atol=1e-6)


def test_remat_changes_neither_parameters_nor_gradients(params):
    keys, x = jax.random.split(KEY, 2), jnp.ones((2, 4, 4, 1))
    again = NETWORK.clone(remat=True)
    jax.tree.map(np.testing.assert_array_equal, initial(again), params)
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)

    def gradient(network):
        loss = lambda p: jnp.sum(network.apply({"params": p}, keys, x)[0] ** 2)
        return jax.grad(loss)

    assert "remat" in str(jax.make_jaxpr(gradient(again))(params))
    first, second = jax.jit(gradient(NETWORK))(params), jax.jit(gradient(again))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), first, second)


def test_residual_posteriors_are_relative_to_the_prior():
    q = vdvae.POSTERIORS["residual"](1.0, 2.0, 10.0, 20.0)
    assert q == (11.0, 22.0) and vdvae.POSTERIORS["direct"](1.0, 2.0, 10.0, 20.0) == (1.0, 2.0)


def test_kernels_begin_within_pytorchs_bounds(params):
    kernel = np.asarray(params["stem"]["kernel"])  # 3x3x1: fan in 9
    assert 0.2 < np.abs(kernel).max() <= 1 / 3 and abs(kernel.mean()) < 0.1
    assert (params["prior_0"]["Conv_3"]["kernel"] == 0).all()
    assert np.abs(params["project_0"]["kernel"]).max() <= (1 / 2 / 2) ** 0.5  # of 2 levels
