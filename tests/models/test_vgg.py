"""VGG against convolutions written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.vgg import BLOCKS, VARIANTS, VGG, canonical, path_to, reach

MODES = {"zero": "constant", "replicate": "edge", "reflect": "reflect"}


def convolve(x, layer, mode):
    """[H, W, C] -> [H, W, O], one tap after another."""
    kernel, bias = (np.asarray(layer[k], np.float64) for k in ("kernel", "bias"))
    size = len(kernel)
    edge = size // 2
    padded = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode=mode)
    height, width, _ = x.shape
    out = np.zeros((height, width, kernel.shape[-1])) + bias
    for i in range(size):
        for j in range(size):
            out += padded[i : i + height, j : j + width] @ kernel[i, j]
    return out


def pooled(x, pool):
    height, width = x.shape[0] // 2, x.shape[1] // 2
    squares = [x[i : 2 * height : 2, j : 2 * width : 2] for i in (0, 1) for j in (0, 1)]
    return {"max": np.max, "avg": np.mean}[pool](squares, axis=0)


def naive(params, image, depth, variant, pool, padding):
    """Every activation of one image, by name."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = {
        "keras": lambda x: 255 * x[..., [2, 1, 0]] - [103.939, 116.779, 123.68],
        "torchvision": lambda x: (x - mean) / std,
        "normalised": lambda x: convolve(x, params["conv0"], "constant"),
        "distilled": lambda x: convolve(x, params["conv0"], "constant"),
    }[variant](image.astype(np.float64))
    out = {}
    for block, count in enumerate(BLOCKS[depth], 1):
        for i in range(1, count + 1):
            x = out[f"conv{block}_{i}"] = convolve(x, params[f"conv{block}_{i}"], MODES[padding])
            x = out[f"relu{block}_{i}"] = out[f"block{block}_conv{i}"] = np.maximum(x, 0)
        x = out[f"pool{block}"] = out[f"block{block}_pool"] = pooled(x, pool)
    return out


def small(monkeypatch, widths=(4, 5, 6, 7, 8)):
    for name, variant in VARIANTS.items():
        monkeypatch.setitem(VARIANTS, name, dataclasses.replace(variant, widths=widths))


@pytest.mark.parametrize(
    "depth,variant,pool,padding",
    [
        (19, "keras", "max", "zero"),
        (16, "torchvision", "avg", "replicate"),
        (19, "normalised", "max", "reflect"),
    ],
)
def test_every_activation(monkeypatch, depth, variant, pool, padding):
    small(monkeypatch)
    convs = [name for kind, name, _ in path_to(["pool5"], depth) if kind == "conv"]
    layers = [n.replace("conv", kind) for n in convs for kind in ("conv", "relu")]
    layers += [f"pool{b}" for b in range(1, 6)] + ["block1_conv2", "block5_conv1", "block2_pool"]
    net = VGG(tuple(layers), depth, variant, pool, "" if variant == "normalised" else padding)
    rng = np.random.default_rng(0)
    images = rng.random((2, 35, 33, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    draw = lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), jnp.float32)
    params = jax.tree.map(draw, variables["params"])
    activations = jax.jit(net.apply)({"params": params}, images)
    assert set(activations) == set(layers)
    for image, i in zip(images, range(2)):
        expected = naive(params, image, depth, variant, pool, padding)
        for name in layers:
            want = expected[name]
            assert activations[name].shape[1:] == want.shape
            error = np.abs(activations[name][i] - want).max() / np.abs(want).max()
            assert error < 5e-5, (name, error)


def test_no_deeper_than_asked():
    shape = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(VGG(("relu1_2", "block3_conv1")).init, jax.random.key(0), shape)
    convs = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"]
    assert sorted(params["params"]) == convs
    assert params["params"]["conv3_1"]["kernel"].shape == (3, 3, 128, 256)


def test_names():
    assert canonical("block4_conv2") == canonical("relu4_2") == "relu4_2"
    assert canonical("conv4_2") == "conv4_2" and canonical("block2_pool") == "pool2"
    for wrong in ("relu3_5", "block6_conv1", "fc6", "relu1_3", "block1_conv", "pool0"):
        with pytest.raises(ValueError, match=wrong):
            canonical(wrong)
    with pytest.raises(ValueError, match="VGG-16"):
        canonical("relu3_4", 16)


def test_too_small_images():
    shape = jax.ShapeDtypeStruct((1, 8, 40, 3), jnp.float32)
    with pytest.raises(ValueError, match="too small"):
        jax.eval_shape(VGG(("relu5_1",)).init, jax.random.key(0), shape)


@pytest.mark.parametrize("layer", ["relu1_2", "relu3_1", "pool2", "relu4_1"])
def test_reach(monkeypatch, layer):
    """Pixels beyond it change nothing, those within do."""
    small(monkeypatch, (2, 2, 2, 2, 2))
    net = VGG((layer,), variant="torchvision", pool="avg")
    stride, radius = reach([layer])
    size, index = 96, 96 // stride // 2
    x = jnp.ones((1, size, size, 3))
    params = jax.tree.map(lambda p: jnp.abs(p) + 0.1, jax.jit(net.init)(jax.random.key(0), x))
    at = lambda x: net.apply(params, x)[layer][0, index, index].sum()
    gradient = jax.jit(jax.grad(at))(x)
    rows = np.flatnonzero(np.abs(gradient[0]).sum((1, 2)))
    assert rows[0] == index * stride - radius
    assert rows[-1] == index * stride + stride - 1 + radius
