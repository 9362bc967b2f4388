"""Causality of every network, and cached sampling against a sampler without any cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import autoregressive, rng
from genjax.models.causal import CausalConv, channel_mask
from genjax.models.pixelcnn import GatedPixelCnn, PixelCnn
from genjax.models.pixelcnn_pp import PixelCnnPp
from genjax.models.pixelrnn import PixelRnn, diagonals
from genjax.models.pixelsnail import PixelSnail, causal_attention
from genjax.objectives.pixel_heads import Bernoulli, LogisticMixture, Softmax

GRAY, COLOUR = (8, 8, 1), (8, 8, 3)
HEADS = {
    "bernoulli": Bernoulli(2, 1),
    "softmax": Softmax(256, 1),
    "colours": Softmax(6, 3),
    "mixture": LogisticMixture(256, 3, 2),
    "codes": Softmax(5, 1, one_hot=True),
}
NETWORKS = {
    "pixelcnn": functools.partial(PixelCnn, features=12, num_layers=2, first_kernel=5),
    "gated": functools.partial(GatedPixelCnn, features=12, dilations=(1, 2), first_kernel=5),
    "row": functools.partial(PixelRnn, kind="row", features=6, num_layers=2),
    "diagonal": functools.partial(PixelRnn, kind="diagonal", features=6, num_layers=2),
    "pp": functools.partial(PixelCnnPp, features=6, blocks=1, resolutions=3),
    "snail": functools.partial(
        PixelSnail, features=6, blocks=1, layers=1, heads=2, key_features=4, value_features=6
    ),
}
CASES = [
    ("pixelcnn", "colours"),
    ("gated", "colours"),
    ("row", "colours"),
    ("diagonal", "colours"),
    ("pp", "mixture"),
    ("snail", "mixture"),
]


@functools.cache
def build(name, head, num_classes=0):
    """Returns (network, head, params), of random parameters to which all inputs matter."""
    head = HEADS[head]
    groups = {"groups": head.channels} if head.channels > 1 and head.channelwise else {}
    network = NETWORKS[name](head.num_outputs, num_classes=num_classes, **groups)
    shape = COLOUR if head.channels == 3 else GRAY
    x = head.encode(jnp.zeros((1, *shape), jnp.int32))
    label = jnp.zeros(1, jnp.int32) if num_classes else None
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, label)["params"]
    return network, head, random_params(shapes)


def random_params(shapes):
    r = np.random.RandomState(0)

    def draw(path, p):
        if path[-1].key == "scale":  # of a normalised kernel
            return jnp.asarray(1 + 0.3 * r.rand(*p.shape), jnp.float32)
        spread = 1.5 / np.sqrt(np.prod(p.shape[:-1])) if p.ndim > 1 else 0.3
        return jnp.asarray(spread * r.randn(*p.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def reached(network, params, shape):
    """Returns which outputs depend on which inputs: bool [H W, P, H W, C]."""
    height, width, channels = shape

    def outputs(x):
        y = network.apply({"params": params}, x[None], None)[0]
        return y.reshape(height * width, -1)

    depends, jacobian = 0, jax.jit(jax.jacrev(outputs))
    for seed in range(2):  # a relu may be off at one image
        x = jax.random.normal(jax.random.key(seed), shape)
        depends = depends | (np.asarray(jacobian(x)) != 0)
    return depends.reshape(height * width, -1, height * width, channels)


@pytest.mark.parametrize("name,head", CASES)
def test_no_output_depends_on_a_later_pixel_or_channel(name, head):
    network, head, params = build(name, head)
    shape = (8, 8, 3)
    depends = reached(network, params, shape)
    pixels = np.arange(64)
    later = pixels[None] > pixels[:, None]
    assert not depends[later.nonzero()[0], :, later.nonzero()[1]].any()
    own = depends[pixels, :, pixels]  # [H W, P, C]
    if not head.channelwise:
        assert not own.any()
        return
    for channel in range(3):  # output k describes channel k mod 3
        mine = own[:, channel::3]
        assert not mine[..., channel:].any()
        assert mine[..., :channel].any((0, 1)).all()
    # Red depends on the pixels before alone, and every colour on all colours of those.
    before = pixels[None] < pixels[:, None]
    assert depends[:, 0::3].any(1)[before].any(0).all()


def pixels_reached(name, head="bernoulli"):
    """Returns which pixels the gray network depends on: bool [H, W, H, W]."""
    network, _, params = build(name, head)
    depends = reached(network, params, GRAY).any((1, 3))
    return depends.reshape(8, 8, 8, 8)


@pytest.mark.parametrize("name", ["diagonal", "snail"])
def test_every_earlier_pixel_is_reached(name):
    depends = pixels_reached(name).reshape(64, 64)
    np.testing.assert_array_equal(depends, np.tri(64, k=-1, dtype=bool))


def field(taps_first, layers, size=8):
    """Follows taps (dy, dx) by hand; returns which pixels they reach: bool [H, W, H, W]."""
    pixels = np.indices((size, size)).reshape(2, -1).T

    def steps(taps):
        matrix = np.zeros((size * size, size * size), bool)
        for n, (y, x) in enumerate(pixels):
            for dy, dx in taps:
                if 0 <= y + dy < size and 0 <= x + dx < size:
                    matrix[n, (y + dy) * size + x + dx] = True
        return matrix

    reach = steps(taps_first)
    for taps in layers:
        reach = steps(taps) @ reach
    return reach.reshape(size, size, size, size)


def before(half, own):
    """Lists the taps of a masked kernel."""
    taps = [(dy, dx) for dy in range(-half, 1) for dx in range(-half, half + 1)]
    return [t for t in taps if t < (0, 0) or own and t == (0, 0)]


def test_plain_pixelcnn_has_its_blind_spot():
    depends = pixels_reached("pixelcnn")
    np.testing.assert_array_equal(depends, field(before(2, False), [before(1, True)] * 2))
    # Above and to the right, within the kernels' sizes, and yet without effect.
    assert not depends[4, 2, 3, 5] and depends[4, 4, 3, 5]


def test_gated_pixelcnn_has_none():
    depends = pixels_reached("gated")
    for i in range(8):
        for j in range(8):
            # Two columns from the first layer, then 1 and 2 from the dilated ones.
            row, cols = slice(max(0, i - 5), i), slice(max(0, j - 5), j + 6)
            assert depends[i, j, row, cols].all(), (i, j)
            assert depends[i, j, i, max(0, j - 5) : j].all() and not depends[i, j, i, j:].any()
    assert depends[4, 2, 3, 5]  # where plain PixelCNN is blind


def test_pixelcnn_pp_has_none():
    depends = pixels_reached("pp")
    for i in range(8):
        for j in range(8):
            assert depends[i, j, i, max(0, j - 3) : j].all()
            assert depends[i, j, max(0, i - 1) : i, max(0, j - 3) : j + 4].all(), (i, j)


def test_row_lstm_sees_its_triangle():
    depends = pixels_reached("row")
    for i in range(8):
        for j in range(8):
            for y in range(i):
                # The first kernel's 3, and a column for each row further up.
                reach = 3 + max(0, i - y - 3)
                assert depends[i, j, y, max(0, j - reach) : j + reach + 1].all()
            assert depends[i, j, i, max(0, j - 3) : j].all()


REMAT = {
    "pp": PixelCnnPp(2, 4, 1, 2, num_classes=3, dropout=0.5),
    "snail": PixelSnail(2, 4, 2, 1, 2, 4, 6, num_classes=3, dropout=0.5),
}


@pytest.mark.parametrize("name", REMAT)
def test_remat_changes_neither_parameters_nor_gradients(name):
    network, again = REMAT[name], REMAT[name].clone(remat=True)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    label = jnp.asarray([0, 2])
    shapes, same = (
        jax.eval_shape(n.init, jax.random.key(1), x, label)["params"] for n in (network, again)
    )
    assert shapes == same
    params = random_params(shapes)

    def gradient(network):
        rngs = {"dropout": jax.random.key(2)}
        apply = lambda p: network.apply({"params": p}, x, label, True, rngs=rngs)
        return jax.grad(lambda p: jnp.sum(apply(p) ** 2))

    assert "remat" in str(jax.make_jaxpr(gradient(again))(params))
    first, second = jax.jit(gradient(network))(params), jax.jit(gradient(again))(params)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(first))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest),
        first,
        second,
    )


def test_attention_is_its_formula():
    r = np.random.RandomState(0)
    shapes = [(2, 6, 2, 3), (2, 6, 2, 3), (2, 6, 2, 5)]  # values longer than keys
    query, key, value = (r.randn(*shape).astype(np.float32) for shape in shapes)
    scores = np.einsum("bnhd,bmhd->bhnm", query, key) / np.sqrt(3)
    weights = np.where(np.tri(6, dtype=bool), np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhnm,bmhd->bnhd", weights, value)
    arrays = list(map(jnp.asarray, (query, key, value)))
    np.testing.assert_allclose(causal_attention(*arrays), expected, atol=1e-5)
    # A single query, whose later keys are not yet written.
    one = causal_attention(arrays[0][:, 3:4], *arrays[1:], newest=jnp.int32(3))
    np.testing.assert_allclose(one, expected[:, 3:4], atol=1e-5)
    # Keys longer than values.
    reverse = causal_attention(arrays[2], arrays[2], arrays[0])
    assert reverse.shape == (2, 6, 2, 3)


def naive_sample(network, head, params, keys, shape, label=None, temperature=1.0):
    """Draws with one full forward pass for each number."""
    uniforms = head.uniforms(keys, shape)

    @jax.jit
    def draw(values):
        x = head.encode(values)
        return head.draw(uniforms, network.apply({"params": params}, x, label), temperature)

    values = np.zeros((len(keys), *shape), np.int32)
    for i, j, c in np.ndindex(shape):
        values[:, i, j, c] = np.asarray(draw(jnp.asarray(values)))[:, i, j, c]
    return values


@functools.cache
def sampler(name, head, num_classes=0, shape=GRAY):
    network, head, params = build(name, head, num_classes)
    levels = getattr(network, "resolutions", 1)

    @jax.jit
    def run(keys, label=None, known=None, given=None, temperature=1.0):
        return autoregressive.sample(
            network,
            {"params": params},
            head,
            keys,
            shape,
            label=label,
            known=known,
            given=given,
            temperature=temperature,
            levels=levels,
        )

    return run


# Not square, so that rows and columns cannot be confused.
@pytest.mark.optimized
@pytest.mark.parametrize("name,head", [*CASES, ("pixelcnn", "codes")])
def test_cached_sampling_is_naive_sampling(name, head):
    network, heads, params = build(name, head, 3)
    shape = (4, 8, heads.channels)
    keys, label = jax.random.split(jax.random.key(3), 2), jnp.asarray([2, 0])
    cached = np.asarray(sampler(name, head, 3, shape)(keys, label, temperature=0.9))
    naive = naive_sample(network, heads, params, keys, shape, label, 0.9)
    np.testing.assert_array_equal(cached, naive)
    assert len(np.unique(cached)) > 1 and (cached[0] != cached[1]).any()


@pytest.mark.optimized
def test_an_image_is_the_same_in_any_batch_and_another_of_another_class():
    run = sampler("gated", "softmax", 3)
    keys, label = jax.random.split(jax.random.key(4), 9), jnp.arange(9) % 3
    batch = np.asarray(run(keys, label))
    np.testing.assert_array_equal(run(keys[5:6], label[5:6])[0], batch[5])
    other = np.asarray(run(keys, (label + 1) % 3))
    assert all((a != b).any() for a, b in zip(batch, other))


@pytest.mark.optimized
def test_known_pixels_stay_and_the_rest_follows_from_them():
    run = sampler("gated", "softmax", 3)
    keys, label = jax.random.split(jax.random.key(5), 9), jnp.zeros(9, jnp.int32)
    free = np.asarray(run(keys, label))
    given = np.zeros((8, 8), bool)
    given[:4] = True
    # Its own samples as known pixels change nothing; another upper half changes the lower one.
    np.testing.assert_array_equal(run(keys, label, jnp.asarray(free), given), free)
    known = np.full_like(free, 255)
    ends = np.asarray(run(keys, label, jnp.asarray(known), given))
    assert (ends[:, :4] == 255).all() and (ends[:, 4:] != free[:, 4:]).any()
    everything = np.ones((8, 8), bool)
    np.testing.assert_array_equal(run(keys, label, jnp.asarray(free + 1), everything), free + 1)


@pytest.mark.parametrize("head", ["bernoulli", "softmax", "mixture"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_value_is_drawn_of_outputs_that_are_not_finite(head, bad):
    network, heads, params = build("gated", head)
    poisoned = jax.tree.map(lambda x: jnp.full_like(x, bad), params)
    shape = (4, 4, heads.channels)
    keys, known = jax.random.split(jax.random.key(0), 2), jnp.ones((2, *shape), jnp.int32)
    given = np.zeros((4, 4), bool)
    given[0] = True
    drawn = autoregressive.sample(
        network, {"params": poisoned}, heads, keys, shape, known=known, given=given
    )
    np.testing.assert_array_equal(drawn[:, 0], 1)
    np.testing.assert_array_equal(drawn[:, 1:], -1)


def test_samples_have_the_probabilities_of_the_model():
    """Counts all 16 images of 2x2 binary pixels."""
    network, head, params = build("gated", "bernoulli")
    draw = jax.jit(
        lambda keys: autoregressive.sample(network, {"params": params}, head, keys, (2, 2, 1))
    )
    count = 20_000
    drawn = np.asarray(draw(jax.random.split(jax.random.key(6), count))).reshape(count, 4)
    images = np.indices((2,) * 4).reshape(4, -1).T
    x = jnp.asarray(images.reshape(16, 2, 2, 1))
    nats = head.log_prob(x, network.apply({"params": params}, head.encode(x)))
    p = np.exp(np.asarray(nats, np.float64).sum((1, 2)))
    counts = np.bincount(drawn @ [8, 4, 2, 1], minlength=16)
    chi2 = ((counts - count * p) ** 2 / (count * p)).sum()
    assert chi2 < 45  # 15 degrees of freedom: exceeded once in 15,000


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_probabilities_of_all_binary_images_sum_to_one(name):
    network, head, params = build(name, "bernoulli")
    size = (4, 4) if name == "pp" else (3, 3)  # PixelCNN++ halves twice: some pixels are fixed
    images = np.zeros((512, 16), np.int32) if name == "pp" else np.zeros((512, 9), np.int32)
    images[:, :9] = np.indices((2,) * 9).reshape(9, -1).T
    x = jnp.asarray(images.reshape(512, *size, 1))
    apply = jax.jit(lambda x: head.log_prob(x, network.apply({"params": params}, head.encode(x))))
    nats = np.asarray(apply(x), np.float64).reshape(512, -1)[:, :9].sum(1)
    assert abs(np.exp(nats).sum() - 1) < 1e-5
    assert np.ptp(nats) > 0.5


def test_masks_of_channels():
    a, b = channel_mask("A", 3, 3, 6), channel_mask("B", 3, 3, 6)
    np.testing.assert_array_equal(a[:, :3], [[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(b[:, :3], [[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(a[:, 3:], a[:, :3])


def test_a_causal_convolution_is_the_sum_it_says():
    x = np.random.RandomState(0).randn(1, 6, 8, 2)
    for top, left, d, s in ((1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 1, 2), (2, 2, 2, 1)):
        conv = CausalConv(3, (2, 3), top, left, dilation=d, strides=s)
        y, variables = conv.init_with_output(jax.random.key(0), jnp.asarray(x, jnp.float32))
        kernel = np.asarray(variables["params"]["kernel"], np.float64)
        expected = np.zeros((1, 6 // s, 8 // s, 3))
        for i, j, a, b in np.ndindex(6 // s, 8 // s, 2, 3):
            row, col = s * i + d * a - top, s * j + d * b - left
            if 0 <= row < 6 and 0 <= col < 8:
                expected[:, i, j] += x[:, row, col] @ kernel[a, b]
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_weight_norm_begins_with_mean_zero_and_the_asked_deviation():
    x = 3 + 2 * rng.normal(jax.random.split(jax.random.key(0), 16), (8, 8, 2))
    conv = CausalConv(5, (2, 3), 1, 1, weight_norm=True, init_scale=0.1)
    y, variables = conv.init_with_output(jax.random.key(1), x)
    np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.std(y, (0, 1, 2)), 0.1, rtol=1e-4)
    # Only the direction of the kernel counts.
    doubled = {**variables["params"], "kernel": 2 * variables["params"]["kernel"]}
    np.testing.assert_allclose(conv.apply({"params": doubled}, x), y, atol=1e-5)


def test_diagonals_are_an_lstm_over_the_grid():
    r = np.random.RandomState(0)
    gates, kernels = r.randn(2, 2, 4, 5, 12), r.randn(2, 6, 12)  # two sides
    # A row and a column of zeros first.
    h, c = np.zeros((2, 2, 5, 6, 3)), np.zeros((2, 2, 5, 6, 3))
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    for side, i, j in np.ndindex(2, 4, 5):
        state = np.concatenate([h[side, :, i, j + 1], h[side, :, i + 1, j]], -1)  # above, left
        o, f, n, g = np.split(gates[side, :, i, j] + state @ kernels[side], 4, -1)
        before = c[side, :, i + 1, j]
        c[side, :, i + 1, j + 1] = sigmoid(f) * before + sigmoid(n) * np.tanh(g)
        h[side, :, i + 1, j + 1] = sigmoid(o) * np.tanh(c[side, :, i + 1, j + 1])
    states = diagonals(jnp.asarray(gates, jnp.float32), jnp.asarray(kernels, jnp.float32))
    np.testing.assert_allclose(states, h[:, :, 1:, 1:], atol=1e-5)


def test_both_sides_of_a_diagonal_layer_go_through_one_loop():
    network, image = PixelRnn(2, "diagonal", 4, num_layers=3), jnp.zeros((1, 5, 6, 1))
    params = jax.eval_shape(network.init, jax.random.key(0), image)
    assert set(params["params"]["lstm0"]) == {"in_left", "in_right", "state_left", "state_right"}
    program = jax.jit(network.apply).lower(params, image).as_text()
    assert program.count("stablehlo.while") == 3
