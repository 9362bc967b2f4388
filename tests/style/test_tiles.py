"""Sums over tiles equal those over the full picture, and so do their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.vgg import VARIANTS, VGG, reach
from genjax.objectives.style import moment_sums
from genjax.style.tiles import make_tiles, ownership, sum_over_tiles


@pytest.mark.parametrize(
    "length,tile,radius", [(100, 16, 20), (37, 8, 3), (64, 64, 9), (91, 7, 40)]
)
@pytest.mark.parametrize("stride", [1, 4])
def test_every_position_has_one_owner_that_sees_far_enough(length, tile, radius, stride):
    tiles = make_tiles(length, length + 5, tile, stride, radius)
    for axis, size in enumerate((length, length + 5)):
        owners = np.zeros(size, int)
        done = set()
        for start, (low, high) in zip(tiles.starts[:, axis], tiles.owned[:, axis]):
            window = tiles.window[axis]
            assert 0 <= start <= size - window and start % stride == 0
            assert start == 0 or low - start >= radius
            assert start + window == size or start + window - high >= radius
            if (low, high) not in done:
                owners[low:high] += 1
                done.add((low, high))
        np.testing.assert_array_equal(owners, 1)
    assert len(set(map(tuple, tiles.starts))) <= len(tiles)


@pytest.mark.parametrize("padding,size", [("zero", (53, 46)), ("replicate", (48, 61))])
def test_equal_to_the_whole(monkeypatch, padding, size):
    with jax.enable_x64(True):
        _test_equal(monkeypatch, padding, size)


def _test_equal(monkeypatch, padding, size):
    narrow = dataclasses.replace(VARIANTS["torchvision"], widths=(3, 4, 5, 5, 5))
    monkeypatch.setitem(VARIANTS, "torchvision", narrow)
    layers = ("relu1_1", "relu2_2", "relu3_1")
    net = VGG(layers, variant="torchvision", padding=padding)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((1, *size, 3)))
    shapes = jax.eval_shape(net.init, jax.random.key(0), image)
    params = jax.tree.map(lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape)), shapes)
    tiles = make_tiles(*size, 8, *reach(layers))
    assert len(tiles) > 20 and tiles.window[0] < size[0]

    def at_once(image):
        return {n: moment_sums(x[0], None) for n, x in net.apply(params, image).items()}

    def tiled(image):
        def sums(start, owned, window):
            activations = net.apply(params, window)
            own = lambda x: ownership(start, owned, tiles.window, x.shape[1:])
            return {n: moment_sums(x[0], own(x)) for n, x in activations.items()}

        return sum_over_tiles(tiles, sums, image)

    def value(fn):
        def loss(image):
            out = fn(image)
            total = sum(jnp.sum(jnp.sin(x / 50)) for x in jax.tree.leaves(out))
            return total, out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(image)

    ((_, sums), gradient), ((_, sums_t), gradient_t) = value(at_once), value(tiled)
    for name in layers:
        for key in ("n", "s1", "s2"):
            np.testing.assert_allclose(sums_t[name][key], sums[name][key], rtol=1e-12)
    scale = np.abs(gradient).max()
    assert np.abs(gradient_t - gradient).max() < 1e-10 * scale
