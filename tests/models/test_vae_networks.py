"""The pairs of networks of a VAE: sizes, labels, batch statistics."""

import jax
import jax.numpy as jnp
import pytest

from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.models.vae_conv64 import Conv64Decoder, Conv64Encoder
from genjax.models.vae_mlp import MlpDecoder, MlpEncoder
from genjax.models.vae_resnet import ResidualBlock, ResNetDecoder, ResNetEncoder
from genjax.train.logs import count_parameters

KEY = jax.random.key(0)
PAIRS = {
    "conv": (ConvEncoder(3, (4, 8), 6), ConvDecoder((8, 12, 3), (8, 4))),
    "mlp": (MlpEncoder(3, (7, 5)), MlpDecoder((8, 12, 3), (5,), "tanh")),
    "conv64": (Conv64Encoder(3, (4, 8)), Conv64Decoder((8, 12, 3), (8, 4))),
    "resnet": (ResNetEncoder(3, (4, 8), 1), ResNetDecoder((8, 12, 3), (8, 4), 1)),
}


def size(module, *inputs):
    return count_parameters(jax.eval_shape(lambda: module.init(KEY, *inputs))["params"])


def test_the_mlp_is_784_500_z():
    assert size(MlpEncoder(20), jnp.zeros((1, 28, 28, 1))) == 785 * 500 + 2 * 501 * 20
    assert size(MlpDecoder((28, 28, 1)), jnp.zeros((1, 20))) == 21 * 500 + 501 * 784


def test_the_tutorials_pair_for_64_ends_at_64():
    encoder, decoder = Conv64Encoder(128), Conv64Decoder((64, 64, 3))
    assert size(encoder, jnp.zeros((1, 64, 64, 3))) == (
        (48 + 1) * 64 + 2 * 64 + (64 * 16 + 1) * 128 + 2 * 128 + 2 * (16 * 16 * 128 + 1) * 128
    )
    dense = 129 * 4 * 4 * 256 + 2 * 256
    middle = sum((a * 16 + 1) * b + 2 * b for a, b in ((256, 128), (128, 64), (64, 32)))
    assert size(decoder, jnp.zeros((1, 128))) == dense + middle + (32 * 16 + 1) * 3
    shape = jax.eval_shape(lambda: decoder.init_with_output(KEY, jnp.zeros((2, 128)))[0]).shape
    assert shape == (2, 64, 64, 3)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_the_same_signatures_and_listens_to_labels(name):
    encoder, decoder = PAIRS[name]
    x = jax.random.uniform(KEY, (2, 8, 12, 3))
    y = jnp.eye(4)[:2]
    z = jax.random.normal(KEY, (2, 3))
    for module, first, shape in ((encoder, x, (2, 3)), (decoder, z, (2, 8, 12, 3))):
        out, variables = jax.jit(module.init_with_output)(KEY, first, y)
        again = jax.jit(module.apply)(variables, first, y[::-1])
        for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(again)):
            assert a.shape == shape and a.dtype == jnp.float32
            assert jnp.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("decoder", [Conv64Decoder((10, 8, 3), (4, 4)), ResNetDecoder((10, 8, 3))])
def test_a_size_that_does_not_halve_is_refused(decoder):
    with pytest.raises(ValueError, match="multiples of 4"):
        jax.eval_shape(lambda: decoder.init(KEY, jnp.zeros((1, 2))))


def test_a_residual_block_begins_as_the_identity():
    x = jax.random.normal(KEY, (1, 4, 4, 6))
    out, _ = jax.jit(ResidualBlock().init_with_output)(KEY, x)
    assert (out == x).all()
