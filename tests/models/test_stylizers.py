"""Decoders and networks of one style."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.models.stylizers import Decoder, TransformNet, decoder_layers
from genjax.models.vgg import WIDTHS


def test_a_decoder_is_the_way_of_vgg_backwards():
    names = [(kind, name) for kind, name, _, _ in decoder_layers("relu3_1")]
    conv, pool = "conv", "pool"
    assert names == [
        (conv, "conv3_1"),
        (pool, "pool2"),
        (conv, "conv2_2"),
        (conv, "conv2_1"),
        (pool, "pool1"),
        (conv, "conv1_2"),
        (conv, "conv1_1"),
    ]
    shape = jax.ShapeDtypeStruct((1, 4, 5, 512), jnp.float32)
    out, variables = jax.eval_shape(Decoder("relu4_1").init_with_output, jax.random.key(0), shape)
    assert out.shape == (1, 32, 40, 3)
    kernels = {n: p["kernel"].shape for n, p in variables["params"].items()}
    # The published decoder of AdaIN.
    assert kernels["conv4_1"] == (3, 3, 512, 256) and kernels["conv3_4"] == (3, 3, 256, 256)
    assert kernels["conv3_1"] == (3, 3, 256, 128) and kernels["conv1_1"] == (3, 3, 64, 3)
    assert len(kernels) == 9 and WIDTHS[3] == 512


def test_pictures_of_a_batch_do_not_see_each_other():
    net = TransformNet(channels=4, num_blocks=1)
    x = jax.random.uniform(jax.random.key(0), (2, 12, 16, 3))
    apply = jax.jit(net.apply)
    variables = jax.jit(net.init)(jax.random.key(1), x)
    both, one = apply(variables, x), apply(variables, x[1:])
    assert both.shape == x.shape and both.min() >= 0 and both.max() <= 1
    np.testing.assert_allclose(both[1:], one, atol=1e-5)
