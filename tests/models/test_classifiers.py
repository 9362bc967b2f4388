import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.cnn import Cnn
from genjax.models.resnet import ResNet


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def test_the_tutorials_network_has_the_tutorials_parameters():
    params = jax.jit(Cnn(10).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert count(params) == 122_570


def test_resnet18_has_its_published_number_of_parameters():
    shapes = jax.eval_shape(ResNet(10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert count(shapes["params"]) == 11_173_962


@pytest.mark.parametrize("network", [Cnn(7, (4, 8), hidden=5), ResNet(7, (1, 1), width=5)])
def test_features_and_logits(network):
    x = jax.random.normal(jax.random.key(0), (3, 12, 12, 1))
    variables = jax.jit(network.init)(jax.random.key(1), x)
    out = jax.jit(network.apply)(variables, x)
    assert out["logits"].shape == (3, 7)
    assert out["features"].shape == (3, 5 if isinstance(network, Cnn) else 10)
    # One image's outputs do not depend on the others' in evaluation.
    alone = jax.jit(network.apply)(variables, x[1:2])
    for name in out:
        np.testing.assert_allclose(out[name][1], alone[name][0], rtol=1e-5, atol=1e-6)


def test_a_block_that_adds_nothing_is_the_identity():
    """With the second batch norm's scale 0 a block with no change of shape is relu(x)."""
    network = ResNet(3, (2,), width=4)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    variables = jax.jit(network.init)(jax.random.key(1), x)
    params = variables["params"]
    for block in ("BasicBlock_0", "BasicBlock_1"):
        scale = params[block]["BatchNorm_1"]["scale"]
        params[block]["BatchNorm_1"]["scale"] = jnp.zeros_like(scale)
    got = jax.jit(network.apply)(variables, x)["features"]
    stem = jax.lax.conv_general_dilated(
        x,
        params["Conv_0"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = jnp.maximum(stem / np.sqrt(1 + 1e-5), 0).mean((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_training_shares_batch_statistics_and_keeps_a_running_average():
    network = ResNet(3, (1,), width=4)
    x = 3 + jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
    variables = jax.jit(network.init)(jax.random.key(1), x)
    _, changed = network.apply(variables, x, True, mutable=["batch_stats"])
    stats = changed["batch_stats"]["BatchNorm_0"]
    stem = jax.lax.conv_general_dilated(
        x,
        variables["params"]["Conv_0"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(stats["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4)
