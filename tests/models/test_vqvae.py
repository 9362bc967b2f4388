import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import vqvae

RNG = np.random.RandomState(0)
KEY = jax.random.key(0)


def naive_update(book, z, index, decay):
    """Equations 6 to 8 of the paper, code by code."""
    counts, sums = book["counts"].copy(), book["sums"].copy()
    for k in range(len(counts)):
        mine = z[index == k]
        counts[k] = decay * counts[k] + (1 - decay) * len(mine)
        sums[k] = decay * sums[k] + (1 - decay) * mine.sum(0)
    return {"codes": sums / counts[:, None], "counts": counts, "sums": sums}


def test_nearest_codes_are_nearest():
    z, codes = RNG.randn(5, 6, 3), RNG.randn(7, 3)
    expected = ((z[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(vqvae.nearest_codes(jnp.asarray(z), jnp.asarray(codes)), expected)


def test_the_codebook_is_the_moving_average_of_its_vectors():
    book = jax.tree.map(np.asarray, vqvae.init_codebook(KEY, 4, 3))
    z, index = RNG.randn(50, 3).astype(np.float32), RNG.randint(0, 3, 50)
    result = vqvae.update_codebook(book, jnp.asarray(z), jnp.asarray(index), 0.9, 0.0, KEY)
    for name, value in naive_update(book, z, index, 0.9).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-5)


def test_the_averages_settle_on_k_means():
    centres = np.asarray([[0.0, 0], [10, 0], [0, 10]])
    z = jnp.asarray(np.repeat(centres, 100, 0) + 0.1 * RNG.randn(300, 2), jnp.float32)
    book = vqvae.init_codebook(KEY, 3, 2)
    for step in range(60):
        index = vqvae.nearest_codes(z, book["codes"])
        key = jax.random.fold_in(KEY, step)
        book = vqvae.update_codebook(book, z, index, 0.7, 1.0, key)
    codes = np.asarray(book["codes"])
    codes = codes[np.argsort(codes[:, 0] + 2 * codes[:, 1])]
    np.testing.assert_allclose(codes, centres, atol=0.1)


def test_dead_codes_become_vectors_of_the_batch_and_living_ones_stay():
    book = vqvae.init_codebook(KEY, 4, 3)
    z = jnp.asarray(RNG.randn(20, 3), jnp.float32)
    index = jnp.zeros(20, jnp.int32)
    alive = vqvae.update_codebook(book, z, index, 0.5, 0.0, KEY)
    result = vqvae.update_codebook(book, z, index, 0.5, 1.0, KEY)
    np.testing.assert_array_equal(result["codes"][0], alive["codes"][0])
    for code in np.asarray(result["codes"][1:]):
        assert np.abs(np.asarray(z) - code).sum(1).min() < 1e-5
    np.testing.assert_allclose(result["counts"][1:], 1.0)


UPDATE_UNDER_PMAP = """
import json
import jax
import jax.numpy as jnp
from genjax.devices import AXIS
from genjax.models import vqvae

key = jax.random.key(0)
book = vqvae.init_codebook(key, 6, 3)
z = jax.random.normal(jax.random.key(1), (20, 3))
index = vqvae.nearest_codes(z, book["codes"]) // 2  # half of the codes are unused
update = lambda z, index: vqvae.update_codebook(book, z, index, 0.5, 1.0, key)
split = lambda x: x.reshape(2, 10, *x.shape[1:])
one, two = update(z, index), jax.pmap(update, AXIS)(split(z), split(index))
print(json.dumps([jax.tree.map(lambda x: x.tolist(), tree) for tree in (one, two)]))
"""


def test_under_pmap_every_device_has_the_codebook_of_the_global_batch(python):
    run = python(UPDATE_UNDER_PMAP, devices=2)
    assert run.returncode == 0, run.stderr
    one, two = json.loads(run.stdout)
    for name, expected in one.items():
        for device in two[name]:
            np.testing.assert_allclose(device, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_straight_through():
    z, quantized = jnp.asarray(RNG.randn(2, 4, 3))
    np.testing.assert_allclose(vqvae.straight_through(z, quantized), quantized, atol=1e-6)
    weights = jnp.asarray(RNG.randn(4, 3))
    loss = lambda z, q: (weights * vqvae.straight_through(z, q)).sum()
    dz, dq = jax.grad(loss, (0, 1))(z, quantized)
    np.testing.assert_allclose(dz, weights)
    np.testing.assert_array_equal(dq, 0)


@pytest.mark.parametrize("shares,expected", [([1, 0, 0], 1), ([0.25] * 4, 4), ([0.5, 0.5, 0], 2)])
def test_perplexity(shares, expected):
    assert float(vqvae.perplexity(jnp.asarray(shares))) == pytest.approx(expected)


def test_decoder_undoes_the_encoders_sizes():
    x = jnp.zeros((2, 12, 8, 3))
    z, _ = jax.jit(vqvae.VqEncoder(5, 4, 2, 1).init_with_output)(KEY, x)
    assert z.shape == (2, 3, 2, 5)
    out = jax.eval_shape(lambda: vqvae.VqDecoder(3, 4, 2, 1).init_with_output(KEY, z)[0])
    assert out.shape == x.shape
    with pytest.raises(ValueError, match="multiples of 4"):
        vqvae.VqEncoder(5).init(KEY, jnp.zeros((1, 10, 8, 3)))
