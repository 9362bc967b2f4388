"""DiffAugment and ADA: known results for known draws, distributions, feedback."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from genjax.devices import tracing_for
from genjax.objectives import ada
from genjax.objectives.diffaugment import POLICIES, cutout, diffaugment, translation

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (3, 8, 12, 3), minval=-1.0)


def keys(count):
    return jax.random.split(jax.random.key(7), count)


differentiable = jax.jit(diffaugment)


def test_a_translation_shifts_and_fills_with_zero():
    image = IMAGES[0] + 3.0  # nowhere 0
    shifts = set()
    for moved in np.asarray(jax.jit(jax.vmap(lambda key: translation(image, key)))(keys(60))):
        rows, columns = (np.flatnonzero(moved.any(axis=(a, 2))) for a in (1, 0))
        matches = [
            (dy, dx)
            for dy in (-1, 0, 1)
            for dx in (-2, -1, 0, 1, 2)
            if np.array_equal(
                np.roll(image, (dy, dx), (0, 1))[np.ix_(rows, columns)],
                moved[np.ix_(rows, columns)],
            )
            and len(rows) == 8 - abs(dy)
            and len(columns) == 12 - abs(dx)
        ]
        assert len(matches) == 1
        shifts.add(matches[0])
    assert len(shifts) > 10  # of 15


def test_cutout_blanks_half_of_each_side_or_what_of_it_is_inside():
    image = jnp.ones((8, 12, 1))
    holes = np.asarray(1 - jax.vmap(lambda key: cutout(image, key))(keys(300)))[..., 0]
    heights, widths = holes.max(2).sum(1), holes.max(1).sum(1)
    np.testing.assert_array_equal(heights * widths, holes.sum((1, 2)))  # rectangles
    assert set(heights) == {2, 3, 4} and set(widths) == {3, 4, 5, 6}
    assert holes.max(0).all()  # everywhere


def test_colours_keep_what_they_should():
    brightness, saturation, contrast = POLICIES["color"]
    difference = np.asarray(brightness(IMAGES[0], KEY) - IMAGES[0])
    np.testing.assert_allclose(difference, difference[0, 0, 0], atol=1e-6)
    assert abs(difference[0, 0, 0]) <= 0.5
    np.testing.assert_allclose(saturation(IMAGES[0], KEY).mean(-1), IMAGES[0].mean(-1), atol=1e-6)
    np.testing.assert_allclose(contrast(IMAGES[0], KEY).mean(), IMAGES[0].mean(), atol=1e-6)
    grey = jnp.broadcast_to(IMAGES[0, :, :, :1], (8, 12, 3))
    np.testing.assert_allclose(saturation(grey, KEY), grey, atol=1e-6)
    scales = jax.vmap(lambda k: contrast(IMAGES[0], k).std() / IMAGES[0].std())(keys(40))
    assert 0.5 <= min(scales) < 0.65 and 1.35 < max(scales) <= 1.5


def test_an_image_is_augmented_by_its_own_key_alone():
    batch = differentiable(IMAGES, keys(3))
    turned = differentiable(IMAGES[::-1], keys(3)[::-1])
    np.testing.assert_allclose(turned[::-1], batch, atol=1e-6)
    assert jnp.abs(batch - IMAGES).max() > 0.1
    np.testing.assert_array_equal(diffaugment(IMAGES, keys(3), ()), IMAGES)


def test_the_gradient_of_an_image_passes_through():
    total = lambda x: jnp.sum(jnp.sin(differentiable(x, keys(3))))
    grad, h = jax.jit(jax.grad(total))(IMAGES), 1e-2
    way = jax.random.normal(KEY, IMAGES.shape)
    slope = (total(IMAGES + h * way) - total(IMAGES - h * way)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(grad * way), slope, rtol=2e-2, atol=0.05)


augment = jax.jit(ada.augment, static_argnums=3)


def test_nothing_happens_with_probability_zero():
    np.testing.assert_allclose(augment(IMAGES, keys(3), 0.0, ada.POLICIES), IMAGES, atol=1e-6)
    changed = jnp.abs(augment(IMAGES, keys(3), 1.0, ada.POLICIES) - IMAGES).max((1, 2, 3))
    assert changed.min() > 0.1


def test_blits_are_mirrors_turns_and_shifts_of_whole_pixels():
    image = np.asarray(jax.random.uniform(KEY, (16, 16, 1)))
    moved = np.asarray(augment(jnp.tile(image, (200, 1, 1, 1)), keys(200), 1.0, ("blit",)))
    known = {}
    for mirror in (False, True):
        for turns in range(4):
            base = np.rot90(image[:, ::-1] if mirror else image, turns)
            padded = np.pad(base, [(2, 2), (2, 2), (0, 0)], "reflect")
            for y in range(5):
                for x in range(5):
                    known[mirror, turns, y, x] = padded[y : y + 16, x : x + 16]
    names, pictures = list(known), np.stack(list(known.values()))
    errors = np.abs(moved[:, None] - pictures[None]).max((2, 3, 4))
    assert errors.min(1).max() < 1e-5
    moves = [names[i] for i in errors.argmin(1)]
    for part, options in zip(zip(*moves), (2, 4, 5, 5)):
        assert len(set(part)) == options


def test_each_group_happens_as_often_as_p_says():
    # Of one operation alone: mirroring is drawn with p and then done half of the time.
    blit = jax.jit(jax.vmap(lambda key: ada._blit(ada._draws(key, 0.5), 16, 16)))
    matrices = blit(keys(2000))
    straight = jnp.abs(matrices[:, :2, :2] - jnp.eye(2)).max((1, 2)) < 1e-6
    # No mirror (3/4) and no turn (1 - 1/2 * 3/4), or both and the same: never.
    np.testing.assert_allclose(jnp.mean(straight), 0.75 * 0.625, atol=0.03)


def test_a_warp_moves_as_its_matrix_says():
    image = jnp.zeros((9, 9, 1)).at[4, 6].set(1.0)
    warp = jax.jit(ada.warp)
    turned = warp(image, ada._rotation(jnp.pi / 2))
    assert turned[2, 4, 0] > 0.999 or turned[6, 4, 0] > 0.999
    np.testing.assert_allclose(warp(image, ada._shift(1.0, -2.0))[5, 4], 1.0, atol=1e-6)
    half = warp(image, ada._shift(0.0, 0.5))[4, :, 0]
    np.testing.assert_allclose(half[6:8], [0.5, 0.5], atol=1e-6)
    larger = warp(image, ada._scaling(jnp.ones(()), 2 * jnp.ones(())))
    assert larger[4, 8, 0] == 1.0


def test_accelerators_warp_by_products_and_get_the_same_image():
    """Against SciPy's sampling, far outside of the image and of sides that differ, too."""
    image = np.asarray(jax.random.normal(KEY, (8, 12, 3)))
    matrix = ada._after(ada._shift(13.3, -30.7), ada._after(ada._rotation(0.7), ada._shift(1, 2)))
    here = jax.jit(ada.warp)(image, matrix)
    with tracing_for(types.SimpleNamespace(platform="tpu")):
        program = jax.jit(lambda image: ada.warp(image, matrix))
        assert "gather" not in str(jax.make_jaxpr(program)(image))
        np.testing.assert_allclose(program(image), here, atol=1e-4)
    y, x = np.mgrid[:8, :12] - np.array([3.5, 5.5])[:, None, None]
    points = np.stack([y, x, np.ones_like(y)])
    source = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), points)[:2]
    source += np.array([3.5, 5.5])[:, None, None]
    for plane in range(3):
        expected = ndimage.map_coordinates(image[..., plane], source, order=1, mode="mirror")
        np.testing.assert_allclose(here[..., plane], expected, atol=1e-4)


def test_colours_are_those_of_the_papers_matrices():
    """Of (r, g, b, 1), as appendix B composes them."""
    draw = ada._draws(KEY, 1.0)
    u, n = ([float(draw(i)[j]) for i in range(10, 15)] for j in (0, 1))
    v = np.append(np.full(3, 3**-0.5), 0.0)
    eye, grey = np.eye(4), np.outer(v, v)
    translate, scale = np.eye(4), np.diag([2 ** (0.5 * n[1])] * 3 + [1])
    translate[:3, 3] = 0.2 * n[0]
    negative = eye - 2 * grey * (u[2] < 0.5)
    angle = (2 * u[3] - 1) * np.pi
    k = np.zeros((4, 4))
    k[:3, :3] = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = eye + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    last = np.diag([0, 0, 0, 1])
    saturation = grey + last + (eye - grey - last) * 2 ** n[4]
    matrix = saturation @ hue @ negative @ scale @ translate
    result = ada.recolor(IMAGES[0], draw)
    wanted = IMAGES[0] @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(result, wanted, atol=1e-5)
    # Of one channel: what grey becomes.
    single = ada.recolor(IMAGES[0, :, :, :1], draw)
    wanted = jnp.broadcast_to(IMAGES[0, :, :, :1], (8, 12, 3)) @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(single, wanted[..., :1], atol=1e-5)


def test_the_feedback_moves_p_towards_the_target():
    state = ada.init_feedback(0.2)
    update = lambda state, sign: ada.update_feedback(
        state, sign, 64, target=0.6, interval=4, speed_images=5120
    )
    probabilities = []
    for sign in (1.0, 1.0, 1.0, 0.0, 0.1, 0.9, 0.5, 0.5):  # means 0.75 and 0.5
        state = update(state, sign)
        probabilities.append(float(state["p"]))
    np.testing.assert_allclose(probabilities, [0.2] * 3 + [0.25] * 4 + [0.2], atol=1e-6)
    for _ in range(400):
        state = update(state, 1.0)
    assert state["p"] == 1.0
    for _ in range(800):
        state = update(state, -1.0)
    assert state["p"] == 0.0


def test_every_group_can_be_differentiated_twice():
    images = IMAGES[:1, :6, :6]

    def slope(x):
        return jnp.sum(jax.grad(lambda x: jnp.sum(ada.augment(x, keys(1), 1.0) ** 2))(x) ** 2)

    gradient = jax.jit(jax.grad(slope))(images)
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0
