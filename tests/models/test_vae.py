import jax
import jax.numpy as jnp
import pytest

from genjax.models.vae import ConvDecoder, ConvEncoder
from genjax.train.logs import count_parameters

KEY = jax.random.key(0)


def test_the_tutorials_sizes():
    encoder, decoder = ConvEncoder(2), ConvDecoder((28, 28, 1))
    e = jax.jit(encoder.init)(KEY, jnp.zeros((1, 28, 28, 1)))["params"]
    d = jax.jit(decoder.init)(KEY, jnp.zeros((1, 2)))["params"]
    # Conv 32 and 64, Dense 16, two heads of 2; the Keras model of the tutorial has as many.
    assert count_parameters(e) == 320 + 18_496 + 50_192 + 2 * 34
    # Dense 7*7*64, transposed 64 and 32, output 1.
    assert count_parameters(d) == 9_408 + 36_928 + 18_464 + 289


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3), (8, 8, 2)])
def test_shapes(shape):
    encoder, decoder = ConvEncoder(5, (4, 8), 6), ConvDecoder(shape, (8, 4))
    output = lambda network, x: jax.eval_shape(network.init_with_output, KEY, x)[0]
    mean, log_variance = output(encoder, jnp.zeros((3, *shape)))
    assert mean.shape == log_variance.shape == (3, 5)
    out = output(decoder, jnp.zeros((3, 5)))
    assert out.shape == (3, *shape)


def test_a_size_that_does_not_halve_is_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        ConvDecoder((30, 28, 1)).init(KEY, jnp.zeros((1, 2)))


def test_computing_in_bfloat16_keeps_float32_parameters_and_outputs():
    x = jax.random.uniform(KEY, (4, 28, 28, 1))
    full, half = ConvEncoder(2), ConvEncoder(2, dtype="bfloat16")
    variables = jax.jit(half.init)(KEY, x)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact, rounded = (jax.jit(net.apply)(variables, x)[0] for net in (full, half))
    assert rounded.dtype == jnp.float32
    assert 0 < jnp.abs(exact - rounded).max() < 0.05
    decoder = ConvDecoder((28, 28, 1), dtype="bfloat16")
    out, variables = jax.jit(decoder.init_with_output)(KEY, jnp.zeros((2, 2)))
    assert out.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
