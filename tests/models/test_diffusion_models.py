"""Denoising networks: sizes, shapes, what they listen to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.attention import attend, sinusoidal
from genjax.models.dit import DiT
from genjax.models.unet import UNet, patchify, unpatchify

TINY = {
    "ddpm": UNet(8, (1, 2), 1, (4,), "ddpm", num_classes=3),
    "ddpmpp": UNet(8, (1, 2), 1, (4,), "ddpmpp", num_classes=3, patch_size=2),
    "dit": DiT(16, 1, 2, 4, num_classes=3),
}


def perturbed(network, x, *args):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, *args)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: 0.15 * rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", TINY)
def test_a_network_listens_to_all_it_is_told(name):
    network = TINY[name]
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    c, labels = jnp.asarray([0.3, -1.0]), jnp.asarray([0, 3])
    params = perturbed(network, x, c, labels)
    apply = jax.jit(lambda x, c, labels: network.apply({"params": params}, x, c, labels))
    out = apply(x, c, labels)
    assert out.shape == x.shape and out.dtype == jnp.float32
    assert (out[0] == apply(x, c, jnp.asarray([0, 1]))[0]).all()  # of its own label alone
    for other in (
        apply(x + 0.1, c, labels),
        apply(x, c + 1.0, labels),
        apply(x, c, jnp.asarray([1, 2])),
    ):
        assert jnp.abs(other - out).max() > 1e-3
    # Every pixel of the input can move every pixel of the output, through attention.
    reach = jnp.abs(apply(x.at[0, 0, 0].add(1.0), c, labels) - out)[0, -1, -1]
    assert reach > 1e-7


def test_a_new_network_says_zero():
    args = (jnp.ones((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    for network in (UNet(4, (1,), 1, ()), DiT(16, 1, 2, 4)):
        out = jax.jit(lambda key, net=network: net.init_with_output(key, *args)[0])
        np.testing.assert_array_equal(out(jax.random.key(0)), 0.0)


def count(network, size, channels=3):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    c = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, c)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_published_networks_have_their_published_sizes():
    # DDPM's CIFAR-10 net is 35.7 M; EDM's DDPM++ 55.7 M.
    assert count(UNet(128, (1, 2, 2, 2), 2, (16,), "ddpm"), 32) == 35_746_307
    assert round(count(UNet(128, (2, 2, 2), 4, (16,), "ddpmpp"), 32) / 1e6, 1) == 55.7


def test_remat_and_half_precision_change_nothing_but_rounding():
    x, c = jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.asarray([0.3, -1.0])
    plain = UNet(4, (1,), 1, (), "ddpmpp")
    params = perturbed(plain, x, c)

    def gradient(network):
        loss = lambda p: jnp.sum(network.apply({"params": p}, x, c) ** 2)
        return jax.jit(jax.value_and_grad(loss))(params)

    value, grads = gradient(plain)
    again, regrads = gradient(UNet(4, (1,), 1, (), "ddpmpp", remat=True))
    np.testing.assert_allclose(value, again, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3), grads, regrads
    )
    half = UNet(4, (1,), 1, (), "ddpmpp", dtype="bfloat16")
    half, full = (jax.jit(net.apply)({"params": params}, x, c) for net in (half, plain))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.1 * float(jnp.abs(full).max()))


def test_patches_go_there_and_back():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = patchify(x, 2)
    np.testing.assert_array_equal(patches[0, 1, 2].reshape(2, 2, 3), x[0, 2:4, 4:6])
    np.testing.assert_array_equal(unpatchify(patches, 2), x)


def test_attention_is_its_formula():
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 3, 4)).astype(np.float32)
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    wanted = np.einsum("bhqk,bkhd->bqhd", weights, v)
    np.testing.assert_allclose(attend(*map(jnp.asarray, (q, k, v))), wanted, atol=1e-5)


def test_times_are_told_as_in_ddpm():
    t = np.asarray([0.0, 7.0, 999.0])
    frequencies = np.exp(-np.log(10000) * np.arange(4) / 3)
    wanted = np.concatenate([np.sin(t[:, None] * frequencies), np.cos(t[:, None] * frequencies)], 1)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(t), 8), wanted, atol=2e-4)
    assert sinusoidal(jnp.ones((3, 2)), 8).shape == (3, 16)


def test_a_size_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="multiples of 4"):
        count(TINY["ddpmpp"], 6)
    with pytest.raises(ValueError, match="multiples of 4"):
        count(TINY["dit"], 6)
