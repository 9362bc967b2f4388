import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize("head", [Softmax(4, 3, one_hot=True), Softmax(4, 1, one_hot=True)])
def test_one_hot_channels_are_about_their_colour(head):
    values = jnp.asarray(RNG.randint(0, 4, (2, 2, 2, head.channels)))
    coded = np.asarray(head.encode(values)).reshape(2, 2, 2, 4, head.channels)
    np.testing.assert_array_equal(coded.argmax(-2), values)
    assert (coded.sum(-2) == 1).all()
