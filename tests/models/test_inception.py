"""Inception-v3 against naive NumPy, and against features that torch-fidelity computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import inception
from genjax.models.inception import InceptionV3
from genjax.weights.inception import from_torch, torch_layout


def random_weights(seed=0):
    """{PyTorch name: array}, He-initialised, normalisations near the unit."""
    rng, weights = np.random.default_rng(seed), {}
    for name, (_, shape) in sorted(torch_layout().items()):
        if len(shape) > 1:
            array = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("bn.weight", "running_var")):
            array = 0.5 + rng.random(shape, np.float32)
        else:
            array = 0.1 * rng.standard_normal(shape, np.float32)
        weights[name] = array.astype(np.float32)
    return weights


def random_images(shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- the full network ---

# First two features of both images as torch-fidelity 0.4.0 on PyTorch 2.13.0 computes them (in
# float64) from `random_weights()` and `random_images((2, 32, 32, 3))`.
GOLDEN = {
    "64": [[0.5812227, 0.3564729], [0.6060500, 0.3164983]],
    "192": [[0.1862525, 0.0055155], [0.1608156, 0.0052067]],
    "768": [[5.0067973, 4.3860216], [5.0881276, 4.4416337]],
    "2048": [[1.6274587, 2.9171016], [2.2291071, 3.0070742]],
    "logits_unbiased": [[-6.2384667, 2.7251582], [-6.2271004, 2.6592236]],
    "logits": [[-6.2316613, 2.6722853], [-6.2202950, 2.6063507]],
}


def test_parameters_are_those_of_the_reference():
    layout = torch_layout()
    # 94 convolutions with four arrays of their normalisation each, and the last layer's two.
    assert len(layout) == 94 * 5 + 2
    sizes = {collection: 0 for collection in ("params", "batch_stats")}
    for (collection, *_), shape in layout.values():
        sizes[collection] += int(np.prod(shape))
    assert sizes == {"params": 23_850_960, "batch_stats": 34_432}
    assert layout["Mixed_6b.branch7x7_2.conv.weight"][1] == (128, 128, 1, 7)
    assert layout["Mixed_7c.branch3x3dbl_3b.conv.weight"][1] == (384, 384, 3, 1)
    assert layout["fc.weight"][1] == (1008, 2048)
    assert layout["Conv2d_1a_3x3.conv.weight"][0] == ("params", "Conv2d_1a_3x3", "conv", "kernel")


def test_features_are_those_of_the_reference():
    weights = random_weights()
    variables = from_torch(weights, "random")
    taps = jax.jit(InceptionV3().apply)(variables, random_images((2, 32, 32, 3)))
    assert {name: values.shape for name, values in taps.items()} == {
        **{name: (2, int(name)) for name in ("64", "192", "768", "2048")},
        **{name: (2, 1008) for name in ("logits_unbiased", "logits")},
    }
    for name, wanted in GOLDEN.items():
        assert taps[name].dtype == jnp.float32
        np.testing.assert_allclose(taps[name][:, :2], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
    bias = np.broadcast_to(weights["fc.bias"], (2, 1008))
    np.testing.assert_allclose(taps["logits"] - taps["logits_unbiased"], bias, atol=1e-4)


def test_an_unknown_resize_is_refused():
    with pytest.raises(ValueError, match="tf1, torch"):
        jax.eval_shape(InceptionV3("bicubic").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


# --- resizing ---


def naive_resize(images, centre):
    """Bilinear, pixel by pixel, in float64."""
    batch, height, width, channels = images.shape
    output = np.zeros((batch, 299, 299, channels))
    for i in range(299):
        y = max((i + centre) * height / 299 - centre, 0)
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for j in range(299):
            x = max((j + centre) * width / 299 - centre, 0)
            left, right = int(x), min(int(x) + 1, width - 1)
            a, b = x - left, y - top
            output[:, i, j] = (
                (1 - a) * (1 - b) * images[:, top, left]
                + a * (1 - b) * images[:, top, right]
                + (1 - a) * b * images[:, bottom, left]
                + a * b * images[:, bottom, right]
            )
    return output


@pytest.mark.parametrize("size", [(32, 32), (1, 5), (299, 299), (340, 301)])
def test_resizing_is_bilinear_at_the_references_positions(size):
    images = random_images((1, *size, 3)).astype(np.float32)
    ours = jax.jit(inception.resize_tf1)(images)
    np.testing.assert_allclose(ours, (naive_resize(images, 0) - 128) / 128, atol=2e-4)
    ours = jax.jit(inception.resize_torch)(images)
    np.testing.assert_allclose(ours, naive_resize(images, 0.5) / 127.5 - 1, atol=2e-4)


def test_images_of_the_right_size_are_not_resampled():
    images = random_images((1, 299, 299, 3)).astype(np.float32)
    np.testing.assert_array_equal(inception.resize_tf1(images), (images - 128) / 128)
    np.testing.assert_allclose(inception.resize_torch(images), images / 127.5 - 1, atol=1e-6)


# --- blocks, in naive NumPy ---


def naive_pool(x, reduce):
    """3x3, stride 1, over the pixels of the image."""
    height, width = x.shape[1:3]
    output = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            output[:, i, j] = reduce(window, axis=(1, 2))
    return output


def naive_conv_bn(x, params, stats, stride=1, same=True):
    """Cross-correlation, (y - mean) / sqrt(var + 0.001) * scale + bias, ReLU; in float64."""
    kernel = params["conv"]["kernel"].astype(np.float64)
    kh, kw = kernel.shape[:2]
    if same:
        x = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    height, width = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    y = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]
            y[:, i, j] = np.tensordot(window, kernel, 3)
    bn, stats = params["bn"], stats["bn"]
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 0.001) * bn["scale"] + bn["bias"]
    return np.maximum(y, 0)


def naive_a(x, conv):
    return [
        conv("branch1x1", x),
        conv("branch5x5_2", conv("branch5x5_1", x)),
        conv("branch3x3dbl_3", conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))),
        conv("branch_pool", naive_pool(x, np.mean)),
    ]


def naive_b(x, conv):
    b = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))
    pooled = naive_pool(x, np.max)[:, 1:-1:2, 1:-1:2]
    return [
        conv("branch3x3", x, stride=2, same=False),
        conv("branch3x3dbl_3", b, stride=2, same=False),
        pooled,
    ]


def naive_e(reduce):
    def branches(x, conv):
        b = conv("branch3x3_1", x)
        c = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))
        return [
            conv("branch1x1", x),
            conv("branch3x3_2a", b),
            conv("branch3x3_2b", b),
            conv("branch3x3dbl_3a", c),
            conv("branch3x3dbl_3b", c),
            conv("branch_pool", naive_pool(x, reduce)),
        ]

    return branches


BLOCKS = {
    "A": (inception.BlockA(32), naive_a),
    "B": (inception.BlockB(), naive_b),
    "E1": (inception.BlockE("avg"), naive_e(np.mean)),
    "E2": (inception.BlockE("max"), naive_e(np.max)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_against_naive_numpy(name):
    block, branches = BLOCKS[name]
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 5, 5, 6)).astype(np.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: rng.uniform(0.1, 1, a.shape).astype(np.float32), shapes)
    variables["params"] = jax.tree.map(
        lambda a: (a - 0.5) / np.sqrt(a.size / a.shape[-1]), variables["params"]
    )

    def conv(name, x, **options):
        return naive_conv_bn(
            x, variables["params"][name], variables["batch_stats"][name], **options
        )

    wanted = np.concatenate(branches(x.astype(np.float64), conv), -1)
    ours = jax.jit(block.apply)(variables, x)
    assert ours.shape == wanted.shape and np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_average_pooling_leaves_the_padding_out():
    x = np.random.default_rng(3).standard_normal((2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(inception._avg_pool_same(x), naive_pool(x, np.mean), atol=1e-6)
