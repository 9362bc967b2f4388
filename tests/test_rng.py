import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import rng

ROOT_KEY = jax.random.key(3)


def noise(name, step, index, shape=(5,)):
    return np.asarray(rng.normal(rng.Rngs(ROOT_KEY, step, jnp.asarray(index))(name), shape))


def test_an_examples_noise_does_not_depend_on_its_batch():
    keys = lambda index: rng.Rngs(ROOT_KEY, 7, jnp.asarray(index))("latent")
    for order in ([2, 3], [3, 0]):
        uniform = rng.uniform(keys([0, 1, 2, 3]), (5,))[np.array(order)]
        np.testing.assert_array_equal(uniform, rng.uniform(keys(order), (5,)))
        # The normal's inverse error function may round otherwise in a vector of another length.
        normal = noise("latent", 7, [0, 1, 2, 3])[order]
        np.testing.assert_allclose(normal, noise("latent", 7, order), rtol=5e-7)


def test_streams_steps_and_examples_differ():
    draws = [
        noise(name, step, [i]) for name in ("latent", "pixels") for step in (0, 1) for i in (0, 1)
    ]
    assert len({d.tobytes() for d in draws}) == 8


def test_the_same_stream_under_jit_and_outside_of_it():
    jitted = jax.jit(lambda step: rng.stream(ROOT_KEY, "latent", step))
    assert jax.random.key_data(jitted(5)).tolist() == (
        jax.random.key_data(rng.stream(ROOT_KEY, "latent", 5)).tolist()
    )


def test_moments():
    keys = rng.per_example(ROOT_KEY, jnp.arange(20_000))
    z, u = rng.normal(keys, (4,)), rng.uniform(keys, (4,))
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    assert abs(u.mean() - 0.5) < 0.01 and u.min() >= 0 and u.max() < 1
    # Examples are independent of one another, and so are the numbers within one.
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 0.03


def test_layers_get_one_key_that_follows_stream_and_step():
    keys = [
        jax.random.key_data(rng.Rngs(ROOT_KEY, s, jnp.arange(4)).layer(n)).tolist()
        for n, s in (("dropout", 0), ("dropout", 1), ("other", 0))
    ]
    assert keys[0] != keys[1] and keys[0] != keys[2]


def test_rows_of_a_divided_batch_are_those_of_the_global_draw():
    whole = rng.bernoulli_rows(ROOT_KEY, 0.3, (8, 5))
    np.testing.assert_array_equal(whole, jax.random.bernoulli(ROOT_KEY, 0.3, (8, 5)))
    index = jnp.array([6, 1, 3])
    with rng.rows_of_batch(index, 8):
        np.testing.assert_array_equal(rng.bernoulli_rows(ROOT_KEY, 0.3, (3, 5)), whole[index])
        with pytest.raises(ValueError, match="2 rows, but this part of the batch has 3"):
            rng.bernoulli_rows(ROOT_KEY, 0.3, (2, 5))
    np.testing.assert_array_equal(rng.bernoulli_rows(ROOT_KEY, 0.3, (8, 5)), whole)
