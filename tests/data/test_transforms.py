import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data import transforms as T
from genjax.devices import tracing_for
from genjax.rng import Rngs, per_example

IMAGES = jnp.asarray(np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3)), jnp.uint8)
KEY = jax.random.key(0)
KEYS = per_example(jax.random.key(0), jnp.arange(6))


def rngs(step=0, index=range(6)):
    return Rngs(jax.random.key(1), step, jnp.asarray(list(index)))


def batch(images=IMAGES, index=range(6)):
    return {"image": images, "index": jnp.asarray(list(index))}


def test_ranges():
    edges = jnp.asarray([[0, 255]], jnp.uint8).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(T.unit(edges).ravel(), [0, 1])
    np.testing.assert_array_equal(T.symmetric(edges).ravel(), [-1, 1])


def test_dequantisation_keeps_the_grey_level():
    x = T.dequantized(IMAGES, KEYS)
    assert x.min() >= 0 and x.max() < 1
    np.testing.assert_array_equal(jnp.floor(x * 256).astype(jnp.uint8), IMAGES)


def test_binarisation_has_the_right_probability():
    many = jnp.full((4000, 2, 2, 1), 64, jnp.uint8)
    x = T.binarized(many, per_example(jax.random.key(0), jnp.arange(4000)))
    assert set(np.unique(x)) == {0.0, 1.0}
    assert abs(x.mean() - 64 / 255) < 0.02
    extremes = jnp.asarray([0, 255], jnp.uint8).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(T.binarized(extremes, KEYS[:2]).ravel(), [0, 1])


def test_flip_mirrors_about_half_of_the_images_whole():
    many = jnp.tile(IMAGES[:1], (400, 1, 1, 1))
    out = T.random_flip(many, per_example(jax.random.key(0), jnp.arange(400)))
    mirrored = (out == many[:, :, ::-1]).all((1, 2, 3))
    kept = (out == many).all((1, 2, 3))
    assert (mirrored ^ kept).all() and 150 < mirrored.sum() < 250


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    """12 images in batches of 8: epochs end within batches, and the order is another each time."""
    transform = T.Transform("unit", flip="alternating", batch_size=8, num_examples=12)
    images = jax.random.randint(jax.random.key(1), (12, 4, 4, 1), 0, 256, jnp.uint8)
    plain = np.asarray(T.unit(images))
    seen = np.zeros((4, 12), int)  # by epoch and image: 1 as it is, 2 mirrored
    apply = jax.jit(lambda data, step: transform(data, Rngs(KEY, step, data["slot"]), True))
    order = np.concatenate([np.random.default_rng(e).permutation(12) for e in range(4)])
    for step in range(6):
        index = jnp.asarray(order[8 * step : 8 * step + 8])
        data = {"image": images[index], "label": index, "index": index, "slot": jnp.arange(8)}
        out = apply(data, step)["image"]
        for slot, (i, image) in enumerate(zip(np.asarray(index), np.asarray(out))):
            mirrored = (image == plain[i][:, ::-1]).all()
            assert mirrored ^ (image == plain[i]).all()
            seen[(8 * step + slot) // 12, i] = 1 + mirrored
    assert set(seen[0]) == {1, 2}
    np.testing.assert_array_equal(seen[0] + seen[1], 3)
    np.testing.assert_array_equal(seen[::2], seen[[0, 0]])
    np.testing.assert_array_equal(seen[1::2], seen[[1, 1]])


def test_alternating_flips_count_epochs_beyond_32_bits_of_examples():
    transform = T.Transform("unit", flip="alternating", batch_size=2000, num_examples=50000)
    far = 25 * 10**7  # an integer number of epochs, and 5e11 images
    one = {"image": jnp.arange(32, dtype=jnp.uint8).reshape(1, 4, 8, 1), "label": jnp.zeros(1)}
    one |= {"index": jnp.asarray([7]), "slot": jnp.asarray([1999])}
    at = jax.jit(lambda step: transform(one, Rngs(KEY, step, one["slot"]), True))
    for later in (0, 24, 25, 49):
        np.testing.assert_array_equal(at(far + later)["image"], at(later)["image"])
    assert (at(0)["image"] != at(25)["image"]).any()


def test_crop_is_a_window_of_the_padded_image():
    padding = 2
    out = np.asarray(T.random_crop(IMAGES, KEYS, padding))
    around = ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0))
    padded = np.pad(np.asarray(IMAGES), around, mode="reflect")
    windows = [(y, x) for y in range(2 * padding + 1) for x in range(2 * padding + 1)]
    for image, wide in zip(out, padded):
        assert any((wide[y : y + 8, x : x + 8] == image).all() for y, x in windows)


def test_a_window_is_dynamic_slice_without_its_loop():
    corners = jnp.asarray([[0, 0], [3, 2], [1, 4], [2, 0]])
    images = IMAGES[:4]
    ours = jax.jit(jax.vmap(lambda image, at: T.window(image, *at, (4, 3))))
    theirs = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), (4, 3, 3)))
    np.testing.assert_array_equal(ours(images, corners), theirs(images, corners))
    with tracing_for(types.SimpleNamespace(platform="tpu")):
        np.testing.assert_array_equal(ours(images, corners), theirs(images, corners))
        text = ours.trace(images, corners).lower(lowering_platforms=("tpu",)).as_text()
    assert "gather" not in text and "slice" in text


@pytest.mark.parametrize("pixels", list(T.PIXELS))
def test_an_example_is_treated_alike_in_any_batch(pixels):
    transform = T.Transform(pixels, flip="random", crop_padding=1)
    whole = transform(batch(), rngs(), train=True)["image"]
    part = transform(batch(IMAGES[2:4], [2, 3]), rngs(index=[2, 3]), train=True)["image"]
    np.testing.assert_array_equal(whole[2:4], part)


def test_dynamic_is_new_every_step_static_never():
    for pixels, same in (("binarized_dynamic", False), ("binarized_static", True)):
        transform = T.Transform(pixels)
        a, b = (transform(batch(), rngs(step), train=True)["image"] for step in (0, 1))
        assert bool((a == b).all()) == same


def test_evaluation_binarises_statically_and_does_not_augment():
    dynamic = T.Transform("binarized_dynamic", flip="random", crop_padding=2)
    static = T.Transform("binarized_static")
    expected = static(batch(), rngs(), train=False)["image"]
    for step in (0, 5):
        np.testing.assert_array_equal(dynamic(batch(), rngs(step), train=False)["image"], expected)


def test_clipping_leaves_no_infinity_to_be_taken_for_white():
    x = jnp.asarray([-1.0, 0.25, 7.0, jnp.inf, -jnp.inf, jnp.nan])
    expected = [0, 0.25, 1, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(T.clip_to_unit(x), np.float32(expected))
