"""Which attention is taken where; the lowering for a GPU is looked at from a CPU."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from experiments.diffusion.diffusion import Diffusion
from experiments.diffusion.one_step import MeanFlow
from genjax.devices import tracing_for
from genjax.diffusion.process import flow
from genjax.models import attention
from genjax.models.attention import BLOCK, attend, attend_causally, plain_attention
from genjax.models.dit import DiT
from genjax.models.pixelsnail import PixelSnail
from genjax.models.unet import UNet
from genjax.rng import Rngs

SHAPE = (8, 8, 1)
NETWORKS = {
    "dit": DiT(16, 1, 2, dtype="bfloat16", remat=True),
    "unet": UNet(8, (1,), attention=(8,), dtype="bfloat16"),
}


TPU = types.SimpleNamespace(platform="tpu")


@pytest.fixture
def gpu(monkeypatch):
    """Traces as on a machine with a GPU of the A100's kind, with cuDNN."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    with tracing_for(types.SimpleNamespace(platform="gpu", compute_capability="8.0")):
        yield


def lowered(fn, *args):
    """The program for CUDA."""
    return jax.jit(fn).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def qkv(dtype=jnp.bfloat16, dim=64):
    return [
        jax.random.normal(k, (2, 16, 2, dim), dtype) for k in jax.random.split(jax.random.key(0), 3)
    ]


def total(q, k, v):
    return attend(q, k, v).astype(jnp.float32).sum()


def test_half_precision_takes_the_fused_kernel_forwards_and_backwards(gpu):
    assert "cudnn" in lowered(attend, *qkv())
    assert "cudnn" in lowered(jax.grad(total, (0, 1, 2)), *qkv())
    assert "cudnn" not in lowered(attend, *qkv(jnp.float32))


def test_forward_derivatives_take_the_plain_one(gpu):
    q, k, v = qkv()

    def pushed(q):
        with plain_attention():
            return jax.jvp(lambda q: attend(q, k, v), (q,), (q,))

    assert "cudnn" not in lowered(pushed, q)
    assert "cudnn" in lowered(attend, q, k, v)  # and nothing of it stays


def test_the_plain_one_after_an_error(gpu):
    with pytest.raises(RuntimeError), plain_attention():
        raise RuntimeError
    assert "cudnn" in lowered(attend, *qkv())


@pytest.mark.parametrize("capability,fused", [(8.0, False), (9.0, True), (12.0, True)])
def test_heads_of_256_are_fused_from_hopper_on(capability, fused):
    fits = lambda dim: attention._fused_fits(jnp.dtype(jnp.bfloat16), dim)
    device = types.SimpleNamespace(platform="gpu", compute_capability=str(capability))
    with tracing_for(device):
        assert [fits(d) for d in (64, 128, 256)] == [True, True, fused]
        assert not fits(264) and not fits(60)


def loss_of(family):
    batch = {
        "image": jax.random.normal(jax.random.key(0), (2, *SHAPE)),
        "label": jnp.zeros(2, jnp.int32),
        "slot": jnp.arange(2),
    }
    rngs = Rngs(jax.random.key(1), 0, batch["slot"])
    params = jax.eval_shape(lambda: family.init(jax.random.key(0))[0])
    return params, batch, rngs


@pytest.mark.parametrize("name", NETWORKS)
def test_mean_flows_are_trained_with_plain_attention(gpu, name):
    family = MeanFlow(NETWORKS[name], SHAPE)
    params, batch, rngs = loss_of(family)
    step = jax.value_and_grad(lambda p: family.loss(p, {}, batch, rngs)[0])
    assert "cudnn" not in lowered(step, params)
    sample = lambda p: family.sample(p, {}, jax.random.split(jax.random.key(0), 2))
    assert "cudnn" in lowered(sample, params)  # without derivatives


def test_the_likelihood_by_the_ode_takes_plain_attention(gpu):
    family = Diffusion(NETWORKS["dit"], SHAPE, process=flow(), ode_tolerance=1e-2)
    params, batch, rngs = loss_of(family)
    assert "cudnn" not in lowered(lambda p: family.ode_nll(p, batch, rngs), params)
    step = jax.value_and_grad(lambda p: family.loss(p, {}, batch, rngs)[0])
    assert "cudnn" in lowered(step, params)


def test_both_are_the_same_on_a_cpu():
    q, k, v = qkv(jnp.float32)
    expected = attend(q, k, v)
    with plain_attention():
        np.testing.assert_array_equal(attend(q, k, v), expected)


LENGTH = 2 * BLOCK + 44  # three blocks of 100 queries
WEIGHTS = f"x{LENGTH}x{LENGTH}x"


def causal_inputs(dtype=jnp.float32, length=LENGTH):
    """Queries, keys, and longer values."""
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(k, (2, length, 2, d), dtype) for k, d in zip(keys, (4, 4, 6))]


def causal_total(q, k, v):
    out = attend_causally(q, k, v).astype(jnp.float32)
    return (jnp.sin(3 * out) * jnp.arange(out.shape[1])[:, None, None]).mean()


@pytest.mark.parametrize("length", [LENGTH, BLOCK + 1])
def test_blocks_of_queries_are_the_full_causal_attention(length):
    inputs = causal_inputs(length=length)
    function = lambda *x: (attend_causally(*x), jax.grad(causal_total, (0, 1, 2))(*x))
    expected = jax.jit(function)(*inputs)
    with tracing_for(TPU):
        out = jax.jit(function)(*inputs)
    assert out[0].shape == (2, length, 2, 6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), out, expected)


def test_blocks_of_queries_have_derivatives_forwards():
    q, k, v = causal_inputs()
    pushed = jax.jit(lambda q: jax.jvp(lambda q: attend_causally(q, k, v), (q,), (q,))[1])
    expected = pushed(q)
    with tracing_for(TPU):
        np.testing.assert_allclose(pushed(q), expected, atol=2e-5)


def test_no_accelerator_holds_the_weights_of_all_pairs(gpu):
    gradients = jax.grad(causal_total, (0, 1, 2))
    with tracing_for(types.SimpleNamespace(platform="cpu")):
        assert WEIGHTS in lowered(gradients, *causal_inputs())
    assert WEIGHTS not in lowered(gradients, *causal_inputs())
    half = lowered(gradients, *causal_inputs(jnp.bfloat16))
    assert "cudnn" in half and WEIGHTS not in half
    with plain_attention():
        plain = lowered(gradients, *causal_inputs(jnp.bfloat16))
    assert "cudnn" not in plain and WEIGHTS not in plain
    with tracing_for(TPU):
        assert WEIGHTS not in lowered(gradients, *causal_inputs(jnp.bfloat16))


def test_pixelsnail_holds_no_weights_of_all_pairs():
    network = PixelSnail(1, features=4, blocks=1, layers=1, remat=True)
    image = jnp.zeros((2, 12, 15, 1))
    params = jax.eval_shape(network.init, jax.random.key(0), image)
    step = jax.grad(lambda p: network.apply(p, image).mean())
    with tracing_for(TPU):
        assert "x180x180x" not in lowered(step, params)
    assert "x180x180x" in lowered(step, params)
