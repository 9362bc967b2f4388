"""The pairs of networks of a GAN: sizes, ranges, labels, batch statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.models.dcgan import DcganDiscriminator, DcganGenerator
from genjax.models.gan import BatchNorm, ProjectionHead
from genjax.models.mlp_gan import MlpDiscriminator, MlpGenerator
from genjax.models.r3gan import Block, R3ganDiscriminator, R3ganGenerator
from genjax.models.sngan import SnganDiscriminator, SnganGenerator
from genjax.objectives.penalties import value_and_squared_gradient_norm
from genjax.train.logs import count_parameters

KEY = jax.random.key(0)
SHAPE = (8, 12, 3)
PAIRS = {
    "mlp_gan": (MlpGenerator(SHAPE, (7, 5)), MlpDiscriminator((6,))),
    "dcgan": (DcganGenerator(SHAPE, (8, 4)), DcganDiscriminator((4, 8))),
    "sngan": (SnganGenerator(SHAPE, (4, 4)), SnganDiscriminator((4, 4, 6))),
    "r3gan": (R3ganGenerator(SHAPE, (8, 4), 1, 2, 4), R3ganDiscriminator((4, 8), 1, 2, 4)),
}


def size(module, *inputs):
    return count_parameters(jax.eval_shape(lambda: module.init(KEY, *inputs))["params"])


def drawn(module, *inputs):
    """Variables of which none is zero; drawing them takes no compiling."""
    shapes = jax.eval_shape(module.init, KEY, *inputs)
    rng = np.random.default_rng(0)
    draw = lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype)
    ones = lambda s: jnp.ones(s.shape, s.dtype)
    rest = {kind: jax.tree.map(ones, tree) for kind, tree in shapes.items() if kind != "params"}
    return {"params": jax.tree.map(draw, shapes["params"]), **rest}


def test_the_tutorials_pair_of_dense_layers():
    widths = (100, 256, 512, 1024, 784)
    dense = sum((a + 1) * b for a, b in zip(widths, widths[1:]))
    norms = 2 * (256 + 512 + 1024)
    assert size(MlpGenerator((28, 28, 1)), jnp.zeros((1, 100))) == dense + norms == 1_489_936
    images = jnp.zeros((1, 28, 28, 1))
    assert size(MlpDiscriminator(), images) == 785 * 512 + 513 * 256 + 257 == 533_505


@pytest.mark.parametrize("side,halvings", [(28, 2), (32, 3), (64, 4)])
def test_a_dcgan_ends_where_its_discriminator_begins(side, halvings):
    features = (32, 16, 8, 4)[:halvings]
    z, shape = jnp.zeros((2, 100)), (side, side, 3)
    generator = DcganGenerator(shape, features)
    images = jax.eval_shape(lambda: generator.init_with_output(KEY, z)[0])
    assert images.shape == (2, *shape)
    discriminator = DcganDiscriminator(features[::-1][:2])
    logits = jax.eval_shape(lambda x: discriminator.init_with_output(KEY, x)[0], images)
    assert logits.shape == (2,)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_the_same_signatures_and_listens_to_labels(name):
    generator, discriminator = PAIRS[name]
    z, y = jax.random.normal(KEY, (4, 5)), jnp.eye(4)

    # Labels act through layers that start at 0, and blocks that do.
    variables = drawn(generator, z, y)
    stats = [k for k in variables if k != "params"]
    train = jax.jit(lambda y: generator.apply(variables, z, y, True, mutable=stats)[0])
    x, other = train(y), train(y[::-1])
    critic = drawn(discriminator, x, y)
    score = jax.jit(lambda x, y: discriminator.apply(critic, x, y))
    logits, relabelled, reversed_ = score(x, y), score(x, y[::-1]), score(x[::-1], y[::-1])
    assert x.shape == (4, *SHAPE) and x.dtype == jnp.float32 and logits.shape == (4,)
    assert jnp.abs(x - other).max() > 1e-3 and jnp.abs(logits - relabelled).max() > 1e-3
    np.testing.assert_allclose(reversed_[::-1], logits, rtol=1e-4, atol=1e-5)  # each on its own
    if name != "r3gan":
        assert jnp.abs(x).max() <= 1


def test_only_generators_have_batch_statistics():
    for name, (generator, discriminator) in PAIRS.items():
        variables = jax.eval_shape(lambda g=generator: g.init(KEY, jnp.zeros((2, 5))))
        assert ("batch_stats" in variables) == (name != "r3gan")
        critic = jax.eval_shape(lambda d=discriminator: d.init(KEY, jnp.zeros((2, *SHAPE))))
        assert set(critic) == {"params"}


def test_blocks_without_norm_begin_as_identities():
    generator = R3ganGenerator((8, 8, 1), (4,), 2, 2, 4)
    z = jax.random.normal(KEY, (3, 5))
    x, variables = jax.jit(generator.init_with_output)(KEY, z)
    params = variables["params"]
    h = params["basis"] * (z @ params["Dense_0"]["kernel"])[:, None, None]
    np.testing.assert_allclose(x, h @ params["Conv_0"]["kernel"][0, 0], rtol=1e-4, atol=1e-5)


def penalized(discriminator, params, x, y):
    """A loss of logits with the squared gradient of R1 and R2, and its gradient."""

    def loss(params):
        score = lambda x: discriminator.apply({"params": params}, x, y)
        logits, squares = value_and_squared_gradient_norm(score, x)
        return jnp.mean(jax.nn.softplus(-logits)) + jnp.mean(squares)

    return jax.value_and_grad(loss)(params)


def images(generator, params, z, y):
    return generator.apply({"params": params}, z, y)


@functools.cache
def r3gan_gradients(**variant):
    """Shapes of parameters, values and gradients of both networks, and the programs' text."""
    z, y = jax.random.normal(KEY, (4, 5)), jnp.eye(4)
    x = jnp.tanh(jax.random.normal(KEY, (4, *SHAPE)))
    shapes, values, text = [], [], ""
    for network, compute, inputs in zip(
        PAIRS["r3gan"], (images, penalized), ((z, y), (x, y)), strict=True
    ):
        network = network.clone(**variant)
        params = drawn(network, *inputs)["params"]
        traced = jax.jit(functools.partial(compute, network)).trace(params, *inputs)
        shapes.append(jax.eval_shape(lambda p: p, params))
        values.append(traced.lower().compile()(params, *inputs))
        text += str(traced.jaxpr)
    return shapes, values, text


@pytest.mark.parametrize(
    "variant,tolerance,word",
    [({"dtype": "bfloat16", "float32_stages": 1}, 0.12, "bf16"), ({"remat": True}, 1e-5, "remat")],
)
def test_half_precision_and_remat_of_r3gan_change_nothing_but_rounding(variant, tolerance, word):
    """Values, and gradients of the penalties too; parameters have the same names.

    In half precision some inputs of leaky ReLUs change sign, and with them second derivatives.
    """
    shapes, values, text = r3gan_gradients()
    other_shapes, other_values, other_text = r3gan_gradients(**variant)
    assert shapes == other_shapes and word in other_text and word not in text
    assert {x.dtype.name for x in jax.tree.leaves(other_values)} == {"float32"}
    error = optax.tree.norm(jax.tree.map(jnp.subtract, values, other_values))
    assert error < tolerance * optax.tree.norm(values)


def test_r3gan_computes_its_lowest_resolution_in_float32():
    inputs = jnp.zeros((2, 5)), jnp.zeros((2, *SHAPE))
    dtypes = ["float32", "bfloat16"], ["bfloat16", "float32"]
    for network, x, wanted in zip(PAIRS["r3gan"], inputs, dtypes, strict=True):
        network = network.clone(dtype="bfloat16", float32_stages=1)
        run = functools.partial(network.init_with_output, capture_intermediates=True)
        _, state = jax.eval_shape(run, KEY, x)
        blocks = [state["intermediates"][f"Block_{i}"]["__call__"][0] for i in range(2)]
        assert [h.dtype.name for h in blocks] == wanted


def test_biases_of_r3gan_sum_their_gradients_in_float32():
    """A sum of 2 x 64 x 64 ones in bfloat16 would stop at 256."""
    block = Block(1, 4, 1, "bfloat16")
    x = jnp.ones((2, 64, 64, 4))
    params = drawn(block, x)["params"]
    # bias2 -> leaky ReLU -> a convolution by the identity.
    params["bias2"] = jnp.full((4,), 1e3)
    params["Conv_2"]["kernel"] = jnp.eye(4)[None, None]
    loss = lambda p: jnp.sum(block.apply({"params": p}, x).astype(jnp.float32))
    grads = jax.jit(jax.grad(loss))(params)
    np.testing.assert_allclose(grads["bias2"], 2 * 64 * 64, rtol=1e-6)


def test_conditional_norm_is_batch_norm_with_a_scale_and_bias_of_each_class():
    h = jax.random.normal(KEY, (6, 2, 2, 3)) * 3 + 1
    y = jnp.eye(2)[jnp.array([0, 1, 0, 1, 1, 0])]
    norm = BatchNorm(0.0)
    variables = norm.init(KEY, h, y, True)
    rows = jax.random.normal(jax.random.key(1), (2, 2, 3))
    params = {"scale": {"kernel": rows[0]}, "bias": {"kernel": rows[1]}}
    out, new = norm.apply({**variables, "params": params}, h, y, True, mutable=["batch_stats"])
    mean, std = h.mean((0, 1, 2)), h.std((0, 1, 2))
    per_class = lambda kernel: (y @ kernel)[:, None, None]
    wanted = (h - mean) / std * (1 + per_class(rows[0])) + per_class(rows[1])
    np.testing.assert_allclose(out, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["norm"]["mean"], mean, rtol=1e-4, atol=1e-5)


def test_a_projection_adds_the_product_with_the_class():
    head, h, y = ProjectionHead(), jax.random.normal(KEY, (3, 4)), jnp.eye(3)
    variables = jax.jit(head.init)(KEY, h, y)
    p = variables["params"]
    wanted = h @ p["logit"]["kernel"][:, 0] + jnp.sum(p["embedding"]["kernel"] * h, axis=1)
    np.testing.assert_allclose(head.apply(variables, h, y), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dcgan", "sngan", "r3gan"])
def test_sizes_that_do_not_halve_are_refused(name):
    _, discriminator = PAIRS[name]
    with pytest.raises(ValueError, match="multiples of"):
        jax.eval_shape(lambda: discriminator.init(KEY, jnp.zeros((1, 9, 8, 3))))
