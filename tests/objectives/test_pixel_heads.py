import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.objectives import logistic_mixture
from genjax.objectives.pixel_heads import Bernoulli, LogisticMixture, Softmax

RNG = np.random.RandomState(0)


def outputs_of(head, shape, scale=1.0):
    return jnp.asarray(scale * RNG.randn(*shape, head.num_outputs), jnp.float32)


@pytest.mark.parametrize("head", [Bernoulli(2), Softmax(256), LogisticMixture(256, 1, 4)])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_probabilities_of_a_pixel_sum_to_one(head, scale):
    outputs = jnp.broadcast_to(outputs_of(head, (1, 1, 5), scale), (head.levels, 1, 5, 1)[:3] + (
        head.num_outputs,))  # fmt: skip
    values = jnp.arange(head.levels)[:, None, None, None] * jnp.ones((1, 1, 5, 1), jnp.int32)
    total = jnp.exp(head.log_prob(values, outputs)).sum(0)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@pytest.mark.parametrize("head", [Bernoulli(2, 3), Softmax(7, 3), LogisticMixture(7, 3, 2)])
def test_probabilities_of_the_colours_sum_to_one(head):
    every = np.indices((head.levels,) * 3).reshape(3, -1).T
    outputs = jnp.broadcast_to(outputs_of(head, (1, 1, 1)), (len(every), 1, 1, head.num_outputs))
    values = jnp.asarray(every)[:, None, None]
    np.testing.assert_allclose(jnp.exp(head.log_prob(values, outputs)).sum(), 1.0, atol=1e-5)


def naive_mixture(x, params, levels):
    """log p(x) of one pixel in float64, as the formula in the module says."""
    m = len(params) // 10
    logits, rest = params[:m], params[m:].reshape(9, m)
    means, log_scales = rest[:3], np.maximum(rest[3:6], -7)
    a, b, c = np.tanh(rest[6:])
    means = [means[0], means[1] + a * x[0], means[2] + b * x[0] + c * x[1]]
    sigmoid = lambda t: 1 / (1 + np.exp(-t))
    total = 0
    for k in range(m):
        product = np.exp(logits[k]) / np.exp(logits).sum()
        for channel in range(3):
            s, centre = np.exp(log_scales[channel, k]), x[channel] - means[channel][k]
            upper = 1 if x[channel] == 1 else sigmoid((centre + 1 / (levels - 1)) / s)
            lower = 0 if x[channel] == -1 else sigmoid((centre - 1 / (levels - 1)) / s)
            product *= upper - lower
        total += product
    return np.log(total)


def test_logistic_mixture_is_its_formula():
    params = RNG.randn(40, 30)
    levels = RNG.randint(0, 256, (40, 3))
    levels[:5], levels[5:10, 1] = 0, 255
    x = 2 * levels / 255 - 1
    found = logistic_mixture.log_prob(jnp.asarray(x, jnp.float32), jnp.asarray(params, jnp.float32))
    expected = [naive_mixture(*pair, 256) for pair in zip(x, params)]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_logistic_mixture_stays_finite_far_from_the_mass():
    params = jnp.asarray([0.0, -1.0, -20.0])  # one component at -1 with the smallest scale
    for level in (0, 1, 100, 255):
        x = jnp.asarray([2 * level / 255 - 1])
        value, gradient = jax.value_and_grad(logistic_mixture.log_prob, 1)(x, params)
        assert np.isfinite(value) and np.isfinite(gradient).all(), level


@pytest.mark.parametrize("head", [Bernoulli(2), Softmax(5), LogisticMixture(5, 1, 2)])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_have_the_probabilities(head, temperature):
    outputs = outputs_of(head, (1, 1, 1))
    count = 40_000
    uniforms = jnp.asarray(RNG.rand(count, 1, 1, head.num_uniforms), jnp.float32)
    many = jnp.broadcast_to(outputs, (count, 1, 1, head.num_outputs))
    drawn = np.asarray(head.draw(uniforms, many, temperature)).ravel()
    values = jnp.arange(head.levels)[:, None, None, None]
    tempered = outputs / temperature
    if isinstance(head, LogisticMixture):  # logits, then means, then log-scales
        logits, means, log_scales = jnp.split(outputs, [2, 4], -1)
        parts = [logits / temperature, means, log_scales + jnp.log(temperature)]
        tempered = jnp.concatenate(parts, -1)
    tempered = jnp.broadcast_to(tempered, (head.levels, 1, 1, head.num_outputs))
    p = np.exp(np.asarray(head.log_prob(values, tempered), np.float64)).ravel()
    share = np.bincount(drawn, minlength=head.levels) / count
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-4).all()


def test_the_mixture_draws_by_key_what_its_uniforms_say():
    params = jnp.asarray(RNG.randn(3, 2, 2, 20), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    x = logistic_mixture.sample(keys, params)
    assert x.shape == (3, 2, 2, 3) and x.min() >= -1 and x.max() <= 1
    levels = (x + 1) * 127.5
    np.testing.assert_allclose(levels, jnp.round(levels), atol=1e-3)
    np.testing.assert_array_equal(logistic_mixture.sample(keys[1:2], params[1:2])[0], x[1])


@pytest.mark.parametrize("head", [Softmax(4, 3, one_hot=True), Softmax(4, 1, one_hot=True)])
def test_one_hot_channels_are_about_their_colour(head):
    values = jnp.asarray(RNG.randint(0, 4, (2, 2, 2, head.channels)))
    coded = np.asarray(head.encode(values)).reshape(2, 2, 2, 4, head.channels)
    np.testing.assert_array_equal(coded.argmax(-2), values)
    assert (coded.sum(-2) == 1).all()
