import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from genjax.objectives import logistic_mixture as lm

RNG = np.random.RandomState(0)
log_prob = jax.jit(lm.log_prob, static_argnums=2)
sample = jax.jit(lm.sample, static_argnums=(2, 3))


def naive_log_prob(x, outputs, components, levels):
    """One pixel x [C], outputs [...], float64, as the paper writes it."""
    channels = len(x)
    rows = outputs.reshape(-1, components)
    logits, means = rows[0], rows[1 : 1 + channels]
    scales = np.exp(np.maximum(rows[1 + channels : 1 + 2 * channels], -7.0))
    coefficients = iter(np.tanh(rows[1 + 2 * channels :]))
    half, total = 1 / (levels - 1), logits - logsumexp(logits)
    for c in range(channels):
        location = means[c] + sum(next(coefficients) * x[b] for b in range(c))
        upper = 1.0 if x[c] > 1 - half else expit((x[c] + half - location) / scales[c])
        lower = 0.0 if x[c] < -1 + half else expit((x[c] - half - location) / scales[c])
        total = total + np.log(upper - lower)
    return logsumexp(total)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_it_is_the_papers_formula_written_naively(channels):
    k, levels = 4, 256
    outputs = RNG.randn(6, lm.num_outputs(channels, k)).astype(np.float32)
    x = RNG.randint(0, levels, (6, channels)) * 2 / (levels - 1) - 1
    x[0], x[1] = -1, 1
    expected = [naive_log_prob(*row, k, levels) for row in zip(x, outputs.astype(np.float64))]
    np.testing.assert_allclose(log_prob(jnp.asarray(x), outputs), expected, rtol=1e-4)


def test_one_channel_sums_to_one_over_256_values():
    outputs = jnp.asarray(RNG.randn(5, 1, lm.num_outputs(1, 3)) * 3, jnp.float32)
    values = jnp.linspace(-1, 1, 256)[None, :, None]
    total = jnp.exp(log_prob(values, outputs)).sum(1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_coupled_channels_sum_to_one_over_all_colours():
    levels, k = 6, 2
    colours = np.asarray(list(itertools.product(np.linspace(-1, 1, levels), repeat=3)))
    outputs = jnp.asarray(RNG.randn(4, 1, lm.num_outputs(3, k)), jnp.float32)
    total = jnp.exp(log_prob(jnp.asarray(colours)[None], outputs, levels)).sum(1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)


def test_samples_have_the_probabilities_that_it_states():
    levels, k, count = 4, 2, 40_000
    outputs = jnp.asarray(RNG.randn(lm.num_outputs(2, k)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), count)
    x = sample(keys, jnp.broadcast_to(outputs, (count, len(outputs))), 2, levels)
    index = np.asarray(jnp.round((x + 1) * (levels - 1) / 2), int)
    counts = np.bincount(index[:, 0] * levels + index[:, 1], minlength=levels**2)
    colours = np.asarray(list(itertools.product(np.linspace(-1, 1, levels), repeat=2)))
    expected = np.exp(log_prob(jnp.asarray(colours), outputs[None], levels))
    deviation = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(counts / count - expected) < 5 * deviation + 1e-4).all()
    # Row i depends on key i alone.
    one = sample(keys[7:8], outputs[None], 2, levels)
    np.testing.assert_array_equal(one[0], x[7])


def test_the_mean_is_that_of_the_samples_where_nothing_is_clipped():
    k, count = 3, 40_000
    rows = RNG.randn(lm.num_outputs(3, k) // k, k).astype(np.float32)
    rows[1:4] *= 0.1
    rows[4:7] = -3.5
    outputs = jnp.asarray(rows.reshape(-1))
    keys = jax.random.split(jax.random.key(2), count)
    x = sample(keys, jnp.broadcast_to(outputs, (count, len(outputs))), 3)
    error = np.asarray(x).mean(0) - lm.mean(outputs, 3)
    assert (np.abs(error) < 5 * np.asarray(x).std(0) / np.sqrt(count)).all()


def test_values_and_gradients_stay_finite_far_out():
    outputs = jnp.asarray(RNG.randn(50, lm.num_outputs(3, 2)) * 40, jnp.float32)
    x = jnp.asarray(RNG.choice([-1.0, 1.0, 1 / 255], (50, 3)), jnp.float32)
    value, grad = jax.value_and_grad(lambda o: log_prob(x, o).sum())(outputs)
    assert np.isfinite(value) and np.isfinite(grad).all() and value < -1e3
