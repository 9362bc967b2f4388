"""Divisors that data or initialisation make 0: values and derivatives stay finite, and sensible."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.diffusion.editing import between, slerp
from genjax.metrics.frechet import Moments, frechet_distance
from genjax.metrics.kernel import kernel_distance
from genjax.metrics.manifold import density_coverage, precision_recall
from genjax.models.airbench import whitening_kernel
from genjax.models.causal import CausalConv
from genjax.models.vqvae import init_codebook, update_codebook
from genjax.numerics import nonzero
from genjax.objectives import penalties, style
from genjax.style.color import match_color
from genjax.style.features import adain, whiten_and_color
from genjax.train.optimizers import make_optimizer


def finite(tree):
    return all(bool(np.isfinite(x).all()) for x in jax.tree.leaves(tree))


def value_and_grad(fn, *args):
    """The value, and the gradient of its sum."""
    value, pullback = jax.vjp(fn, *args)
    return value, pullback(jax.tree.map(jnp.ones_like, value))


def test_a_divisor_that_is_not_above_the_floor_is_one_without_a_derivative():
    x = jnp.array([-1.0, 0.0, 0.5, 2.0])
    value, (slope,) = value_and_grad(lambda x: 3.0 / nonzero(x, 0.5), x)
    np.testing.assert_allclose(value, [3, 3, 3, 1.5])
    np.testing.assert_allclose(slope, [0, 0, 0, -0.75])


# --- Spectral normalisation and other norms of parameters -----------------------------------------


def normalized(kernel, vector):
    out, new = penalties.spectral_normalize({"kernel": kernel}, {"kernel": vector})
    return out["kernel"], new["kernel"]


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e-12, 1e-7])
def test_a_kernel_of_about_zero_stays_and_its_gradient_passes(size):
    vector = jnp.array([0.6, 0.8])
    kernel = size * jax.random.normal(jax.random.key(0), (3, 3, 4, 2))
    (value, new), (slope,) = value_and_grad(lambda k: normalized(k, vector), kernel)
    np.testing.assert_array_equal(value, kernel)
    np.testing.assert_allclose(slope, 1.0)
    np.testing.assert_array_equal(new, vector)


def test_power_iteration_goes_on_once_a_kernel_of_zeros_has_moved():
    kernel, vector = jnp.zeros((1, 1, 5, 4)), jnp.full(4, 0.5)
    for _ in range(3):
        _, vector = normalized(kernel, vector)
    kernel = 1e-3 * jax.random.normal(jax.random.key(0), kernel.shape)
    for _ in range(60):
        out, vector = normalized(kernel, vector)
    np.testing.assert_allclose(np.linalg.norm(out[0, 0], 2), 1.0, rtol=1e-4)


def test_a_vector_that_the_kernel_maps_to_zero_is_kept():
    kernel = jnp.zeros((1, 1, 2, 2)).at[0, 0, 0, 1].set(3.0)
    (value, new), (slope,) = value_and_grad(lambda k: normalized(k, jnp.array([1.0, 0.0])), kernel)
    assert finite((value, new, slope))
    np.testing.assert_array_equal(new, [1.0, 0.0])


def test_the_gradient_of_a_flat_critic_has_a_penalty_with_a_gradient():
    x, keys = jnp.ones((2, 4, 4, 1)), jax.random.split(jax.random.key(0), 2)

    def penalty(scale):
        return penalties.gradient_penalty(lambda x: scale * x.sum((1, 2, 3)), x, x, keys)

    value, slope = value_and_grad(penalty, jnp.zeros(()))
    np.testing.assert_allclose(value, 1.0, atol=1e-5)
    assert finite(slope)


def test_a_kernel_of_zeros_with_weight_norm_has_a_moderate_gradient():
    layer = CausalConv(3, (2, 2), 1, 1, weight_norm=True)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    params = layer.init(jax.random.key(1), x)["params"]
    params["kernel"] = params["kernel"].at[..., 0].set(0.0)
    value, (slope,) = value_and_grad(lambda p: layer.apply({"params": p}, x), params)
    assert finite((value, slope))
    assert float(jnp.abs(slope["kernel"]).max()) < 1e3


def test_a_kernel_of_zeros_moves_by_the_speed_runs_optimizer():
    tx = make_optimizer("airbench", lambda step: 0.24, momentum=0.0)
    params = {"kernel": jnp.zeros((3, 3, 2, 4))}
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert finite(updates) and float(optax.tree.norm(updates)) > 0


# --- Styles ---------------------------------------------------------------------------------------

FLAT = [jnp.zeros((4, 5, 3)), jnp.full((4, 5, 3), 0.7)]
ADDITIVE = [name for name, loss in style.STYLE_LOSSES.items() if loss.additive]


@pytest.mark.parametrize("name", style.STYLE_LOSSES)
@pytest.mark.parametrize("image", FLAT)
@pytest.mark.parametrize("target", FLAT)
def test_styles_of_flat_pictures(name, image, target):
    loss = style.STYLE_LOSSES[name]
    target = loss.prepare(loss.sums(target))
    value, slope = value_and_grad(lambda x: loss.distance(loss.sums(x), target), image)
    assert finite((value, slope)) and float(value) >= -1e-5


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_region_without_positions(name):
    loss = style.STYLE_LOSSES[name]
    nothing = jnp.zeros((4, 5))
    image = jax.random.normal(jax.random.key(0), (4, 5, 3))

    def compare(own, other):
        target = loss.prepare(loss.sums(image, other))
        return value_and_grad(lambda x: loss.distance(loss.sums(x, own), target), image)

    for own, other in ((nothing, None), (None, nothing), (nothing, nothing)):
        assert finite(compare(own, other))


@pytest.mark.parametrize("flat", [x.reshape(-1, 3) for x in FLAT])
def test_self_similarity_of_a_flat_picture(flat):
    other = jax.random.normal(jax.random.key(0), flat.shape)
    distance = style.self_similarity_distance
    value, slope = value_and_grad(distance, flat, flat)
    assert float(value) == 0 and finite(slope)
    value, slope = value_and_grad(distance, flat, other)
    # As shares of each column's sum; of n positions at most 2 / n apart in the mean, times n.
    assert 0 <= float(value) <= 2 + 1e-5 and finite(slope)


@pytest.mark.parametrize("flat", FLAT)
def test_statistics_are_transferred_to_and_from_a_flat_picture(flat):
    other = jax.random.normal(jax.random.key(0), flat.shape)
    mean = other.mean((0, 1))
    for transfer in (whiten_and_color, lambda c, s: adain(c[None], s[None])[0]):
        value, slope = value_and_grad(transfer, flat, other)
        assert finite(value)
        np.testing.assert_allclose(value.mean((0, 1)), mean, atol=1e-3)
        assert finite(transfer(other, flat)) and finite(transfer(flat, flat))


def test_colours_are_matched_to_and_from_one_colour():
    flat = np.full((4, 5, 3), 0.3, np.float32)
    other = np.random.default_rng(0).random((6, 4, 3), np.float32)
    for image, reference in ((flat, other), (other, flat), (flat, flat)):
        out = match_color(image, reference)
        assert finite(out)
    np.testing.assert_allclose(match_color(other, flat).mean((0, 1)), 0.3, atol=2e-3)


# --- Everything else ------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [(0.0, 0.0), (1.0, 2.0), (-1.0, -2.0), (2.0, 4.0)])
def test_walks_between_any_noises_end_at_them(b):
    a, b = jnp.array([1.0, 2.0]), jnp.array(b)
    walk = between(a, b, 5)
    assert finite(walk) and float(jnp.abs(walk).max()) <= 4 + 1e-5
    np.testing.assert_allclose(walk[0], a, atol=1e-5)
    np.testing.assert_allclose(walk[-1], b, atol=1e-5)
    assert finite(slerp(b, a, 0.3)) and finite(slerp(jnp.zeros(2), jnp.zeros(2), 0.5))


def test_a_whitening_of_pictures_of_one_colour():
    for value in (0.0, 1.0):
        assert finite(whitening_kernel(jnp.full((4, 8, 8, 3), value)))


def test_codes_that_nothing_ever_chose():
    codebook = init_codebook(jax.random.key(0), 4, 2)
    z, index = jnp.ones((6, 2)), jnp.zeros(6, jnp.int32)
    for _ in range(3):
        codebook = update_codebook(codebook, z, index, 0.0, 0.0, jax.random.key(1))
    assert finite(codebook)


def test_metrics_of_constant_features():
    same, other = np.ones((8, 3)), np.random.default_rng(0).normal(size=(8, 3))
    for x, y in ((same, same), (same, other), (other, same)):
        distance = frechet_distance(Moments.of(x), Moments.of(y))
        results = [
            distance,
            *kernel_distance(x, y),
            *precision_recall(x, y),
            *density_coverage(x, y),
        ]
        assert finite(results)
    assert frechet_distance(Moments.of(same), Moments.of(same)) == 0
