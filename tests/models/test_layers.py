"""Conv and ConvTranspose against Flax's, values and gradients, over shapes."""

import itertools
import json
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.devices import tracing_for
from genjax.models import layers

CASES = [  # kernel, stride, padding, height, width, in, out
    ((1, 1), 1, "SAME", 5, 6, 3, 8),
    ((1, 1), 2, "SAME", 5, 6, 3, 1),
    ((2, 2), 1, "SAME", 5, 7, 8, 1),
    ((2, 2), 2, "VALID", 6, 5, 3, 8),
    ((2, 3), (2, 1), "SAME", 5, 4, 8, 3),
    ((3, 3), 1, "SAME", 7, 7, 8, 1),
    ((3, 3), 1, "VALID", 7, 6, 1, 8),
    ((3, 3), 2, "SAME", 7, 8, 8, 3),
    ((3, 3), 2, "VALID", 7, 8, 1, 8),
    ((3, 3), 3, "SAME", 7, 5, 3, 3),
    ((3, 3), 2, ((1, 1), (2, 0)), 7, 8, 3, 8),
    ((4, 4), 2, "SAME", 6, 5, 8, 3),
    ((4, 4), 2, ((2, 2), (1, 3)), 6, 5, 3, 1),
    ((4, 4), 3, "VALID", 7, 6, 3, 3),
    ((5, 5), 1, "SAME", 6, 7, 8, 1),
    ((5, 5), 2, "SAME", 7, 6, 3, 8),
    ((5, 3), (3, 2), ((4, 5), (0, 3)), 7, 6, 3, 3),
    ((7, 7), 1, "SAME", 9, 8, 8, 1),
    ((7, 7), 3, "VALID", 9, 8, 1, 3),
    ((2, 2), 3, "SAME", 4, 5, 3, 3),
]
PAIRS = [(layers.Conv, nn.Conv), (layers.ConvTranspose, nn.ConvTranspose)]


def pair(case, ours, theirs, form, dtype=None):
    kernel, stride, padding, height, width, channels, features = case
    strides = (stride, stride) if isinstance(stride, int) else stride
    options = dict(features=features, kernel_size=kernel, padding=padding, dtype=dtype)
    a = ours(strides=stride, form=form, **options)
    b = theirs(strides=strides, **options)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, height, width, channels)).astype(np.float32))
    weights = {
        "kernel": rng.normal(size=(*kernel, channels, features)).astype(np.float32),
        "bias": rng.normal(size=features).astype(np.float32),
    }
    params = {"params": jax.tree.map(jnp.asarray, weights)}
    return a, b, params, x


def value_and_grads(layers, params, x):
    """Of each layer; one compilation, not one per operation: most of this file's time."""

    def run(layer, params, x):
        y, pullback = jax.vjp(layer.apply, params, x)
        weight = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return y, pullback(weight)

    return jax.jit(lambda *args: [run(layer, *args) for layer in layers])(params, x)


def agree(a, b, params, x, tolerance):
    close(*value_and_grads((a, b), params, x), tolerance)


def close(a, b, tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert p.shape == q.shape and p.dtype == q.dtype
        p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
        np.testing.assert_allclose(p, q, rtol=0, atol=tolerance * max(1.0, abs(q).max(initial=0)))


@pytest.fixture
def x64():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def ids(case):
    return "-".join(map(str, case)).replace(" ", "")


@pytest.mark.parametrize("ours,theirs", PAIRS)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_values_and_gradients_in_double_precision(case, ours, theirs, x64):
    forms = [None, "columns"] if ours is layers.ConvTranspose or case[1] == 1 else [None]
    found = [pair(case, ours, theirs, form, jnp.float64) for form in forms]
    _, reference, params, x = found[0]
    inputs = params, x.astype(jnp.float64)
    *values, wanted = value_and_grads([*(a for a, *_ in found), reference], *inputs)
    for value in values:
        close(value, wanted, 1e-10)


@pytest.mark.parametrize("form", [None, "lax", "columns"])
@pytest.mark.parametrize("ours,theirs", PAIRS)
def test_single_precision(ours, theirs, form):
    a, b, params, x = pair(((3, 3), 1, "SAME", 9, 8, 64, 32), ours, theirs, form)
    agree(a, b, params, x, 1e-5)


@pytest.mark.parametrize("ours,theirs", PAIRS)
def test_same_initial_parameters(ours, theirs):
    a, b, _, x = pair(((3, 3), 2, "SAME", 9, 8, 3, 4), ours, theirs, None)
    close(jax.jit(a.init)(jax.random.key(5), x), jax.jit(b.init)(jax.random.key(5), x), 0)
    a = ours(features=4, kernel_size=(3, 3), use_bias=False)
    assert list(jax.jit(a.init)(jax.random.key(0), x)["params"]) == ["kernel"]


@pytest.mark.parametrize("ours,theirs", PAIRS)
def test_vmap_jvp_remat_and_second_derivative(ours, theirs):
    a, b, params, x = pair(((3, 3), 1, "SAME", 6, 5, 8, 2), ours, theirs, "columns")
    xs, dx = jnp.stack([x, 2 * x]), jnp.sin(x)
    in_axes = (None, 0)
    close(jax.vmap(a.apply, in_axes)(params, xs), jax.vmap(b.apply, in_axes)(params, xs), 1e-5)
    tangents = jax.tree.map(jnp.cos, params), dx
    close(jax.jvp(a.apply, (params, x), tangents), jax.jvp(b.apply, (params, x), tangents), 1e-5)

    def slope(layer, x):
        loss = lambda x: jnp.sum(jnp.tanh(layer.apply(params, x)))
        return jax.jvp(jax.grad(jax.checkpoint(loss)), (x,), (dx,))

    close(jax.jit(lambda x: slope(a, x))(x), slope(b, x), 1e-4)


@pytest.mark.parametrize("ours,theirs", PAIRS)
def test_half_precision_compute_keeps_float32_parameters(ours, theirs):
    a, b, params, x = pair(((3, 3), 2, "SAME", 6, 5, 8, 3), ours, theirs, None, jnp.bfloat16)
    agree(a, b, params, x, 1e-6)
    assert params["params"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype,tolerance", [(None, 1e-5), (jnp.bfloat16, 0)])
def test_a_dense_layer_is_flaxs(shape, dtype, tolerance):
    a, b = (layer(7, dtype=dtype) for layer in (layers.Dense, nn.Dense))
    x = jax.random.normal(jax.random.key(0), shape)
    params = jax.jit(b.init)(jax.random.key(1), x)
    close(jax.jit(a.init)(jax.random.key(1), x), params, 0)
    agree(a, b, params, x, tolerance)


def test_pmap_over_one_device():
    a, b, params, x = pair(((3, 3), 2, "SAME", 6, 5, 8, 3), *PAIRS[1], None)
    y = jax.pmap(a.apply, in_axes=(None, 0))(params, x[None])
    close(y[0], b.apply(params, x), 1e-5)


def test_bad_padding_is_refused():
    layer = layers.ConvTranspose(features=1, kernel_size=(3, 3), padding="CIRCULAR")
    with pytest.raises(ValueError, match="SAME, VALID or pairs"):
        layer.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 7, 9, 2)])
def test_max_pool_is_flaxs_and_so_is_its_gradient(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    theirs = lambda x: nn.max_pool(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(layers.max_pool(x), theirs(x))
    weights = jax.random.normal(jax.random.key(1), theirs(x).shape)
    grad = lambda pool: jax.grad(lambda x: jnp.sum(weights * pool(x)))(x)
    np.testing.assert_array_equal(grad(layers.max_pool), grad(theirs))


def test_max_pool_is_the_same_where_it_is_flaxs():
    x = jax.random.normal(jax.random.key(0), (2, 7, 9, 3))
    here = layers.max_pool(x)
    with tracing_for(types.SimpleNamespace(platform="tpu")):
        np.testing.assert_array_equal(layers.max_pool(x), here)


def test_of_equal_maxima_the_first_has_the_gradient_as_in_flaxs():
    x = jnp.round(jax.random.normal(jax.random.key(0), (2, 6, 6, 3)))
    grad = lambda pool: jax.grad(lambda x: jnp.sum(pool(x, 3) ** 2))(x)
    theirs = lambda x, size: nn.max_pool(x, (size, size), (size, size))
    np.testing.assert_array_equal(grad(layers.max_pool), grad(theirs))


def test_max_pools_gradient_divides_by_nothing_and_nan_stays_nan():
    x = jnp.ones((1, 2, 2, 1))
    assert " div " not in str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(layers.max_pool(x))))(x))
    for i, j in itertools.product(range(2), repeat=2):
        assert np.isnan(layers.max_pool(x.at[0, i, j].set(jnp.nan))).all()


def test_average_pooling_is_the_mean_of_squares_and_drops_an_odd_edge():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    expected = x[:, :4].reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(layers.average_pool_2x2(jnp.asarray(x)), expected, rtol=1e-5)


def test_upsampling_repeats_pixels_and_pooling_undoes_it():
    x = np.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(layers.upsample_nearest(x)[0, :, :, 0], expected)
    np.testing.assert_array_equal(layers.average_pool_2x2(layers.upsample_nearest(x)), x)
    assert layers.upsample_nearest(x, 3).shape == (1, 6, 6, 1)


BATCH_NORM_UNDER_PMAP = """
import json
import types
import jax
import jax.numpy as jnp
from genjax.devices import AXIS
from genjax.models.layers import batch_norm

x = jnp.arange(24.0).reshape(8, 3) ** 2

def apply(train, variables, x):
    norm = batch_norm(train, momentum=0.9, dtype="float32")
    return norm.apply(variables, x, mutable=["batch_stats"])

variables = jax.jit(batch_norm(True, momentum=0.9, dtype="float32").init)(jax.random.key(0), x)
out = {}
for train in (True, False):
    y, stats = apply(train, variables, x)
    devices = jax.pmap(lambda x: apply(train, variables, x), AXIS)
    shares, of_devices = devices(x.reshape(2, 4, 3))
    out[train] = {
        "results": [y.tolist(), shares.reshape(8, 3).tolist()],
        "means": [stats["batch_stats"]["mean"].tolist()]
        + of_devices["batch_stats"]["mean"].tolist(),
    }
print(json.dumps(out))
"""


def test_batch_norm_under_pmap_has_the_statistics_of_the_global_batch(python):
    run = python(BATCH_NORM_UNDER_PMAP, devices=2)
    assert run.returncode == 0, run.stderr
    out = json.loads(run.stdout)
    for mode in out.values():
        for name in ("results", "means"):
            first, *others = mode[name]
            for other in others:
                np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)
    assert np.abs(out["true"]["means"][0]).max() > 0 and not np.any(out["false"]["means"][0])


def test_dropout_is_flaxs_bit_for_bit():
    x = jnp.asarray(np.random.RandomState(0).randn(6, 7, 3), jnp.float32)
    rngs = {"dropout": jax.random.key(3)}
    for rate, deterministic in ((0.4, False), (0.4, True), (0.0, False)):
        ours, theirs = (
            layer(rate, deterministic=deterministic).apply({}, x, rngs=rngs)
            for layer in (layers.Dropout, nn.Dropout)
        )
        np.testing.assert_array_equal(ours, theirs)
