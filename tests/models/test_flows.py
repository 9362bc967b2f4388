"""Flows: inverses, log-determinants, densities, and twins in NumPy at the same parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from genjax.models.flows import ActNorm, ChannelMix, log_standard_normal, squeeze, unsqueeze
from genjax.models.glow import Glow
from genjax.models.maf import AutoregressiveFlow
from genjax.models.realnvp import RealNvp, VariationalNoise
from genjax.models.tarflow import TarFlow

KEY = jax.random.key(0)
FLOWS = {
    "realnvp": RealNvp(features=4, blocks=1, scales=2, num_classes=3),
    "glow": Glow(features=4, depth=2, levels=2, num_classes=3),
    "tarflow": TarFlow(2, width=8, blocks=2, layers=2, head_dim=4, num_classes=3),
    "maf": AutoregressiveFlow("maf", (12,), 2, num_classes=3),
    "iaf": AutoregressiveFlow("iaf", (12,), 2, num_classes=3),
}
LABEL = jnp.array([0, 2, 1])


def drawn(module, *inputs, scale=0.15):
    """Variables of which none is zero; drawing them takes no compiling."""
    shapes = jax.eval_shape(module.init, KEY, *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(scale * rng.normal(size=s.shape), s.dtype), shapes)


def images(count=3, shape=(4, 4, 1)):
    return jnp.asarray(np.random.default_rng(1).normal(size=(count, *shape)), jnp.float32)


# ---- Inverses and determinants ----


@pytest.mark.parametrize("name", FLOWS)
def test_the_inverse_gives_the_images_back(name):
    flow, x = FLOWS[name], images()
    variables = drawn(flow, x, LABEL)

    @jax.jit
    def there_and_back(x):
        latents, _ = flow.apply(variables, x, LABEL)
        return latents, flow.apply(variables, latents, LABEL, method="inverse")

    latents, back = there_and_back(x)
    assert tuple(z.shape[1:] for z in latents) == flow.latent_shapes((4, 4, 1))
    assert sum(z.size for z in latents) == x.size
    assert max(abs(z).max() for z in latents) > 0.1
    np.testing.assert_allclose(back, x, atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    flow, x = FLOWS[name], images()
    variables = drawn(flow, x, LABEL)

    @jax.jit
    def jacobian(x):
        def flat(x):
            latents, log_det = flow.apply(variables, x.reshape(1, 4, 4, 1), LABEL[:1])
            return jnp.concatenate([z.ravel() for z in latents]), log_det[0]

        return jax.jacfwd(flat, has_aux=True)(x[0].ravel())

    matrix, log_det = jacobian(x)
    assert abs(log_det) > 0.1
    expected = np.linalg.slogdet(np.asarray(matrix, np.float64))[1]
    np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-4)


PLANE = {
    "realnvp": RealNvp(features=4, blocks=1, scales=1),
    "tarflow": TarFlow(1, width=8, blocks=2, layers=1, head_dim=4),
    "maf": AutoregressiveFlow("maf", (12,), 2),
}


@pytest.mark.parametrize("name", PLANE)
def test_a_density_of_two_numbers_integrates_to_one(name):
    flow = PLANE[name]
    t = np.linspace(-6, 6, 241)  # x = sinh(t) reaches far and is fine near 0
    x = np.sinh(np.stack(np.meshgrid(t, t), -1).reshape(-1, 1, 2, 1))
    cells = np.sqrt(1 + x**2).prod((1, 2, 3)) * (t[1] - t[0]) ** 2
    x = jnp.asarray(x, jnp.float32)
    variables = drawn(flow, x[:1], scale=0.25)
    latents, log_det = jax.jit(lambda x: flow.apply(variables, x))(x)
    log_p = sum(map(log_standard_normal, latents)) + log_det
    assert np.sum(np.exp(np.asarray(log_p)) * cells) == pytest.approx(1, abs=1e-2)
    assert abs(log_p - log_standard_normal(x)).max() > 0.3


def test_learnt_noise_of_two_pixels_has_a_density_that_integrates_to_one():
    q = VariationalNoise(features=4, blocks=1, couplings=2)
    axis = np.linspace(-6, 6, 121, dtype=np.float32)
    noise = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2, 1))
    image = jnp.broadcast_to(jnp.array([0.3, -0.8])[:, None], noise.shape)
    variables = drawn(q, noise[:1], image[:1], scale=0.3)
    u, log_q = jax.jit(q.apply)(variables, noise, image)
    assert 0 < u.min() and u.max() < 1
    # The mean of 1 / q under q is the area of its support.
    area = np.exp(np.asarray(log_standard_normal(noise) - log_q)).sum() * (axis[1] - axis[0]) ** 2
    assert area == pytest.approx(1, abs=1e-2)


# ---- Layers ----


def test_squeezing_takes_squares_and_gives_them_back():
    x = images(2, (4, 6, 3))
    y = squeeze(x)
    assert y.shape == (2, 2, 3, 12)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_array_equal(y[..., 2 * i + j :: 4], x[:, i::2, j::2])
    np.testing.assert_array_equal(unsqueeze(y), x)
    with pytest.raises(ValueError, match="5x6 has no squares"):
        squeeze(jnp.zeros((1, 5, 6, 1)))


def test_activation_norm_starts_from_the_statistics_of_its_inputs():
    x = 3 * images(8, (4, 4, 2)) - 5
    (y, log_det), _ = jax.jit(ActNorm().init_with_output)(KEY, x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(log_det, -16 * np.log(x.std((0, 1, 2))).sum(), rtol=1e-5)
    constant, _ = ActNorm().init_with_output(KEY, jnp.ones((3, 2)))[0]
    assert (constant == 0).all()


def test_channels_are_mixed_by_an_orthogonal_matrix_at_first():
    x = jnp.eye(6).reshape(6, 1, 1, 6)
    (y, log_det), _ = jax.jit(ChannelMix().init_with_output)(KEY, x)
    matrix = y.reshape(6, 6)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)
    other = drawn(ChannelMix(), x)
    y, log_det = jax.jit(ChannelMix().apply)(other, x)
    lu = np.asarray(other["params"]["lu"], np.float64)
    expected = (np.tril(lu, -1) + np.eye(6)) @ (np.triu(lu, 1) + np.diag(np.exp(np.diag(lu))))
    np.testing.assert_allclose(y.reshape(6, 6), expected, atol=1e-6)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(expected)[1], atol=1e-5)


def test_glow_starts_with_normalised_latents_of_the_images_it_is_given():
    flow = Glow(features=4, depth=2, levels=1)
    x = 4 * images(64) + 7
    (latents, log_det), variables = jax.jit(flow.init_with_output)(KEY, x)
    (z,) = latents
    # The coupling at first multiplies one half of the channels by sigmoid(2).
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0, atol=0.2)
    scales = np.sort(np.asarray(z.std((0, 1, 2))))
    assert 0.7 < scales[0] and scales[-1] < 1.2
    assert variables["params"]["level0"]["mix"]["lu"].shape == (2, 4, 4)
    first, second = variables["params"]["level0"]["mix"]["lu"]
    assert abs(first - second).max() > 0.1  # each step has a matrix of its own


@pytest.mark.parametrize("name", ("realnvp", "glow", "tarflow", "maf"))
def test_classes_move_latents(name):
    flow, x = FLOWS[name], jnp.repeat(images(1), 3, axis=0)
    variables = drawn(flow, x, LABEL)
    last = jax.jit(lambda y: flow.apply(variables, x, y)[0][-1])(jnp.array([0, 1, -1]))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(last[i] - last[j]).max() > 1e-3


@pytest.mark.parametrize("name", ("realnvp", "glow", "tarflow"))
def test_layers_computed_again_for_gradients_change_nothing(name):
    plain = {
        "realnvp": RealNvp(features=2, blocks=0, scales=1),
        "glow": Glow(features=2, depth=1, levels=1),
        "tarflow": TarFlow(2, width=4, blocks=1, layers=1, head_dim=4),
    }[name]
    x = images()
    variables = drawn(plain, x)
    loss = lambda flow, v: sum(jnp.sum(z**2) for z in flow.apply(v, x)[0])
    grad = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)
    first, again = grad(plain, variables), grad(plain.clone(remat=True), variables)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# ---- Autoregressive order, and sampling with a cache ----


@pytest.mark.parametrize("name", ("tarflow", "maf"))
def test_blocks_are_triangular_in_alternating_order(name):
    flow = {
        "tarflow": TarFlow(2, width=8, blocks=1, layers=1, head_dim=4),
        "maf": AutoregressiveFlow("maf", (12,), 1),
    }[name]
    x = images(1)
    variables = drawn(flow, x)
    flat = lambda x: flow.apply(variables, x.reshape(1, 4, 4, 1))[0][0].ravel()
    order = np.arange(16)
    if name == "tarflow":  # its tokens are squares
        order = order.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).ravel()
    matrix = np.asarray(jax.jit(jax.jacfwd(flat))(x.ravel()))[:, order]
    above = np.triu(np.ones((16, 16)), 1) > 0
    assert abs(matrix[above]).max() == 0 and abs(matrix[~above]).max() > 0.1


@pytest.mark.parametrize("guidance", (0.0, 1.5))
def test_the_cached_inverse_equals_one_pass_for_each_patch(guidance):
    flow = TarFlow(2, width=8, blocks=1, layers=2, head_dim=4, num_classes=3)
    x = images()
    variables = drawn(flow, x, LABEL)
    (z,), _ = flow.apply(variables, x, LABEL)
    cached = jax.jit(lambda z: flow.apply(variables, (z,), LABEL, guidance, method="inverse"))(z)
    twin = functools.partial(numpy_block, variables["params"]["block0"])
    z, label = np.asarray(z, np.float64).reshape(3, 4, 4), np.asarray(LABEL)
    patches = z.copy()
    for t in range(1, 4):
        a, b = twin(patches, label)
        if guidance:
            without = twin(patches, np.full(3, -1))
            a, b = (y + guidance * (y - w) for y, w in zip((a, b), without))
        patches[:, t] = z[:, t] * np.exp(a[:, t - 1]) + b[:, t - 1]
    naive = patches.reshape(3, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(3, 4, 4, 1)
    np.testing.assert_allclose(cached, naive, rtol=1e-5, atol=1e-5)
    assert (abs(cached - x).max() > 1e-3) == bool(guidance)


# ---- Twins in NumPy, float64 ----


def numpy_conv(x, kernel):
    """A convolution with zeros around x, by shifted sums."""
    kh, kw = kernel.shape[:2]
    padded = np.pad(x, ((0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(kh)
        for j in range(kw)
    )


def numpy_squeeze(x):
    parts = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    return np.stack(parts, -1).reshape(*parts[0].shape[:3], -1)


def numpy_norm(p, x):
    scale = np.exp(3 * p["log_scale"])
    return (x + p["bias"]) * scale, np.log(scale).sum() * x.shape[1] * x.shape[2]


def numpy_zero_conv(p, x):
    y = numpy_conv(x, p["conv"]["kernel"]) + p["conv"]["bias"]
    return y * np.exp(3 * p["log_scale"])


def numpy_glow(p, x, label, depth, levels):
    total, latents = np.zeros(len(x)), []
    for level in range(levels):
        x = numpy_squeeze(x)
        for i in range(depth):
            step = jax.tree.map(lambda a, i=i: a[i], p[f"level{level}"])
            x, change = numpy_norm(step["norm"], x)
            total += change
            lu = step["mix"]["lu"]
            upper = np.triu(lu, 1) + np.diag(np.exp(np.diag(lu)))
            matrix = (np.tril(lu, -1) + np.eye(len(lu))) @ upper
            x = x @ matrix
            total += np.linalg.slogdet(matrix)[1] * x.shape[1] * x.shape[2]
            half = x.shape[-1] // 2
            c, h = step["coupling"], x[..., :half]
            for name in ("first", "second"):
                h = numpy_norm(c[f"{name}_norm"], numpy_conv(h, c[name]["kernel"]))[0]
                h = np.maximum(h, 0)
            h = numpy_zero_conv(c["last"], h)
            scale = 1 / (1 + np.exp(-h[..., half:] - 2))
            x = np.concatenate([x[..., :half], (x[..., half:] + h[..., :half]) * scale], -1)
            total += np.log(scale).sum((1, 2, 3))
        if level < levels - 1:
            half = x.shape[-1] // 2
            x, z = x[..., :half], x[..., half:]
            prior = numpy_zero_conv(p[f"prior{level}"], x)
        else:
            z, half = x, x.shape[-1]
            prior = (p["top"] + p["classes"]["kernel"][label])[:, None, None]
        mean, log_std = prior[..., :half], prior[..., half:]
        latents.append((z - mean) / np.exp(log_std))
        total -= np.broadcast_to(log_std, z.shape).sum((1, 2, 3))
    return latents, total


def numpy_layer_norm(p, x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def numpy_block(p, x, label, head_dim=4):
    """a and b of the patches after x [B, T, C]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
    dense = lambda p, x: x @ p["kernel"] + p["bias"]
    h = dense(p["patches"], x) + p["positions"]
    rows = np.concatenate([p["classes"], p["classes"].mean(0, keepdims=True)])
    h = h + rows[label][:, None]
    for i in range(len(p["layers"]["qkv"]["bias"])):
        layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        qkv = dense(layer["qkv"], numpy_layer_norm(layer["norm1"], h))
        attended = np.zeros_like(h)
        width = h.shape[-1]
        for start in range(0, width, head_dim):
            q, k, v = (qkv[..., o + start : o + start + head_dim] for o in (0, width, 2 * width))
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(head_dim)
            weights = np.tril(np.exp(scores))
            attended[..., start : start + head_dim] = weights / weights.sum(-1, keepdims=True) @ v
        h = h + dense(layer["out"], attended)
        inner = dense(layer["mlp1"], numpy_layer_norm(layer["norm2"], h))
        h = h + dense(layer["mlp2"], inner * 0.5 * (1 + erf(inner / np.sqrt(2))))
    out = dense(p["out"], h)
    return out[..., : x.shape[-1]], out[..., x.shape[-1] :]


def numpy_tarflow(p, x, label, blocks):
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 2, 4)
    x, total = x.reshape(batch, -1, 4), 0
    for i in range(blocks):
        x = x[:, ::-1] if i % 2 else x
        a, b = numpy_block(p[f"block{i}"], x, label)
        x = np.concatenate([x[:, :1], (x[:, 1:] - b[:, :-1]) * np.exp(-a[:, :-1])], 1)
        total = total - a[:, :-1].sum((1, 2))
        x = x[:, ::-1] if i % 2 else x
    return [x.reshape(batch, height // 2, width // 2, 4)], total


def numpy_realnvp(p, x, label):
    def couple(number, x, mask):
        nonlocal total
        c = p[f"coupling{number}"]
        net = c["network"]
        h = numpy_conv(x * mask, net["first"]["kernel"]) + net["first"]["bias"]
        h = h + net["classes"]["kernel"][label][:, None, None]
        inner = np.maximum(h, 0)
        for i in range(2):
            layer = net[f"block0_{i}"]
            inner = numpy_conv(inner, layer["kernel"]) + layer["bias"]
            inner = np.maximum(inner, 0) if i == 0 else inner
        h = np.maximum(h + inner, 0)
        out = numpy_conv(h, net["last"]["kernel"]) + net["last"]["bias"]
        channels = x.shape[-1]
        log_scale = np.where(mask == 1, 0, c["bound"] * np.tanh(out[..., channels:]))
        x = np.where(mask == 1, x, x * np.exp(log_scale) + out[..., :channels])
        x, change = numpy_norm(p[f"norm{number}"], x)
        total += log_scale.sum((1, 2, 3)) + change
        return x

    def checker(x, odd):
        rows, columns = np.indices(x.shape[1:3])
        return np.broadcast_to(((rows + columns) % 2 == odd)[..., None], x.shape) * 1.0

    def channels(x, odd):
        return np.broadcast_to((np.arange(x.shape[-1]) // (x.shape[-1] // 2) == odd) * 1.0, x.shape)

    total, latents = np.zeros(len(x)), []
    for i in range(3):
        x = couple(i, x, checker(x, i % 2))
    x = numpy_squeeze(x)
    for i in range(3):
        x = couple(4 + i, x, channels(x, i % 2))
    x, z = x[..., :2], x[..., 2:]
    latents.append(z)
    for i in range(4):
        x = couple(8 + i, x, checker(x, i % 2))
    return [*latents, x], total


TWINS = {
    "realnvp": numpy_realnvp,
    "glow": functools.partial(numpy_glow, depth=2, levels=2),
    "tarflow": functools.partial(numpy_tarflow, blocks=2),
}


@pytest.mark.parametrize("name", TWINS)
def test_latents_and_log_determinants_are_those_of_a_twin_in_numpy(name):
    flow, x = FLOWS[name], images()
    variables = drawn(flow, x, LABEL)
    latents, log_det = jax.jit(lambda x: flow.apply(variables, x, LABEL))(x)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    expected, total = TWINS[name](params, np.asarray(x, np.float64), np.asarray(LABEL))
    for z, wanted in zip(latents, expected, strict=True):
        np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_det, total, rtol=1e-4, atol=1e-4)
