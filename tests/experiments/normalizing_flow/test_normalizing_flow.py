"""The family of flows: noise on pixels, bits, samples, pictures, what it refuses, its fields."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glow_mnist, realnvp_digits, tarflow_mnist
from experiments.normalizing_flow import normalizing_flow
from experiments.normalizing_flow.noise import Dequantization, GaussianNoise
from experiments.normalizing_flow.normalizing_flow import NormalizingFlow
from experiments.normalizing_flow.pictures import interpolated
from genjax import rng
from genjax.errors import UserError
from genjax.models.glow import Glow
from genjax.models.realnvp import VariationalNoise
from genjax.models.tarflow import TarFlow
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import check_config
from genjax.runner.fields import check_idle, merged
from tests.effects import Case, another, described, label, leaves

SHAPE = (4, 4, 1)
KEYS = rng.per_example(jax.random.key(3), jnp.arange(10))
RNGS = rng.Rngs(jax.random.key(1), jnp.int32(0), jnp.arange(10))
SMALL = TarFlow(2, width=8, blocks=2, layers=1, head_dim=4)


def drawn(family, scale=0.2):
    """Parameters of which none is zero; drawing them takes no compiling."""
    images = np.zeros((4, *family.image_shape), np.uint8) if family.num_init_examples else None
    shapes = jax.eval_shape(family.init, jax.random.key(0), images)[0]
    numbers = np.random.default_rng(0)
    draw = lambda s: jnp.asarray(scale * numbers.normal(size=s.shape), s.dtype)
    return jax.tree.map(draw, shapes)


def batch(count=10, shape=SHAPE):
    values = np.random.RandomState(0).randint(0, 256, (count, *shape))
    image = jnp.asarray(values / 255, jnp.float32)
    return {"image": image, "label": jnp.arange(count) % 10, "index": jnp.arange(count)}


# ---- Noise ----


@pytest.mark.parametrize("logit", (0.0, 0.05))
def test_every_level_of_a_pixel_survives_noise_and_units(logit):
    noise = Dequantization(None, logit)
    images = (jnp.arange(256) / 255).reshape(1, 16, 16, 1).repeat(8, 0)
    y, nats = noise.add({}, images, KEYS[:8])
    np.testing.assert_allclose(noise.images(y), images, atol=1e-6)
    assert abs(y[0] - y[1]).max() > 1e-4  # noise of its own for each image
    if not logit:
        np.testing.assert_allclose(nats, 256 * math.log(128), rtol=1e-6)


def test_the_logit_transform_has_its_jacobian():
    noise = Dequantization(None, 0.1)
    x = jnp.linspace(0.01, 0.99, 16).reshape(1, *SHAPE)
    y, log_det = noise._to_y(x)
    slopes = jax.vmap(jax.grad(lambda x: noise._to_y(x.reshape(1, 1, 1, 1))[0].sum()))(x.ravel())
    np.testing.assert_allclose(log_det, jnp.log(slopes).sum()[None], rtol=1e-5)
    p = 0.1 + 0.8 * np.asarray(x)
    np.testing.assert_allclose(y, np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)


def test_learnt_noise_costs_its_own_density():
    q = VariationalNoise(4, blocks=1, couplings=2)
    family = NormalizingFlow(SMALL, SHAPE, Dequantization(q))
    params, x = drawn(family), batch()["image"]
    y, nats = jax.jit(family.add_noise)(params, x, KEYS)
    u, log_q = jax.jit(q.apply)({"params": params["noise"]}, rng.normal(KEYS, SHAPE), 2 * x - 1)
    np.testing.assert_allclose(y, 2 * (jnp.round(255 * x) + u) / 256 - 1, atol=1e-6)
    np.testing.assert_allclose(nats, log_q + 16 * math.log(128), rtol=1e-5)
    np.testing.assert_allclose(family.noise.images(y), x, atol=1e-6)


def test_half_of_a_level_of_noise_on_average():
    y, _ = Dequantization().add({}, jnp.zeros((10, 32, 32, 1)), KEYS)
    np.testing.assert_allclose(((y + 1) / 2 * 256).mean(), 0.5, atol=0.02)
    y, nats = GaussianNoise(0.2).add({}, jnp.full((10, 32, 32, 1), 0.5), KEYS)
    np.testing.assert_allclose(y.std(), 0.2, rtol=0.05)
    assert (nats == 0).all()


# ---- Numbers ----


def test_bits_are_those_of_the_closed_form_where_the_flow_is_the_identity():
    family = NormalizingFlow(SMALL, SHAPE)
    zero = jax.tree.map(lambda p: 0 * p, drawn(family))
    values = jax.jit(family.evaluate)(zero, {}, batch(), RNGS)
    numbers = family.summarize(jax.tree.map(np.asarray, values))
    y, _ = family.add_noise(zero, batch()["image"], RNGS("noise"))
    density = -0.5 * (np.asarray(y, np.float64) ** 2 + math.log(2 * math.pi))
    expected = -(density.sum() / 10 / 16 / math.log(2)) + 7  # a level is 2 / 256 = 2^-7 wide
    np.testing.assert_allclose(numbers["bpd"], expected, rtol=1e-6)
    np.testing.assert_allclose(numbers["nll_nats"], expected * 16 * math.log(2), rtol=1e-6)
    assert numbers["inverse_error_max"] < 1e-6
    loss, (metrics, _) = jax.jit(family.loss)(zero, {}, batch(), RNGS)
    np.testing.assert_allclose(metrics["bpd"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, expected * math.log(2), rtol=1e-5)


def test_noisy_images_have_other_names_for_their_numbers():
    family = NormalizingFlow(SMALL, SHAPE, GaussianNoise(0.1), invert=False)
    values = jax.jit(family.evaluate)(drawn(family), {}, batch(), RNGS)
    assert set(family.summarize(jax.tree.map(np.asarray, values))) == {
        "noisy_nll_nats",
        "noisy_bits_per_dim",
    }


def test_training_leaves_out_classes():
    network = TarFlow(2, width=8, blocks=1, layers=1, head_dim=4, num_classes=10)
    losses = {}
    for dropout in (0.0, 0.5, 0.999):
        family = NormalizingFlow(network, SHAPE, num_classes=10, label_dropout=dropout)
        params = drawn(family, 0.5)
        step = jax.jit(family.loss, static_argnames="train")
        losses[dropout] = step(params, {}, batch(), RNGS)[0]
        assert step(params, {}, batch(), RNGS, train=False)[0] == pytest.approx(losses[0.0])
    without = {**batch(), "label": jnp.full(10, -1)}
    np.testing.assert_allclose(losses[0.999], step(params, {}, without, RNGS)[0], rtol=1e-6)
    assert len({float(loss) for loss in losses.values()}) == 3


# ---- Samples and pictures ----


def test_a_sample_depends_on_its_own_key_and_its_class_alone():
    network = Glow(features=4, depth=1, levels=2, num_classes=10)
    family = NormalizingFlow(network, SHAPE, num_classes=10)
    params, labels = drawn(family), jnp.arange(4)
    sample = jax.jit(lambda keys, labels: family.sample(params, {}, keys, labels))
    four, reverse = sample(KEYS[:4], labels), sample(KEYS[:4][::-1], labels[::-1])
    assert four.shape == (4, *SHAPE) and 0 <= four.min() and four.max() <= 1
    np.testing.assert_allclose(four, reverse[::-1], atol=1e-6)
    assert abs(four - sample(KEYS[:4], labels + 1)).max() > 0
    np.testing.assert_allclose(four * 255, np.round(four * 255), atol=1e-3)


def test_temperature_zero_is_the_mode_and_guidance_acts():
    network = TarFlow(2, width=8, blocks=2, layers=1, head_dim=4, num_classes=10)
    make = lambda **fields: NormalizingFlow(network, SHAPE, num_classes=10, **fields)
    params, labels = drawn(make()), jnp.zeros(3, jnp.int32)
    draw = lambda **fields: jax.jit(make(**fields).sample)(params, {}, KEYS[:3], labels)
    cold, plain, guided = draw(temperature=0.0), draw(), draw(guidance=3.0)
    assert abs(cold - cold[:1]).max() == 0
    assert abs(plain - plain[:1]).max() > 0.1 and abs(guided - plain).max() > 0.01


def test_denoising_is_the_posterior_mean():
    std = 0.5
    family = NormalizingFlow(SMALL, SHAPE, GaussianNoise(std))
    zero = jax.tree.map(lambda p: 0 * p, drawn(family))
    y = rng.normal(KEYS, SHAPE)
    # The noisy images are N(0, 1): E[x | y] = (1 - std^2) y.
    denoised = jax.jit(family.denoised)(zero, y)
    np.testing.assert_allclose(denoised, (1 - std**2) * y, rtol=1e-5, atol=1e-6)
    noisy = NormalizingFlow(SMALL, SHAPE, GaussianNoise(std), denoise=False)
    sharp, raw = (jax.jit(f.sample)(zero, {}, KEYS) for f in (family, noisy))
    assert abs(sharp - 0.5).mean() < abs(raw - 0.5).mean()


def test_interpolations_end_where_they_should_at_constant_norm():
    start, end = (jnp.asarray(np.random.RandomState(i).normal(size=(2, 2000))) for i in (0, 1))
    for share, expected in ((0.0, start), (1.0, end)):
        np.testing.assert_array_equal(interpolated((start,), (end,), share)[0], expected)
    (half,) = interpolated((start,), (end,), 0.5)
    np.testing.assert_allclose(half.std(1), 1, atol=0.1)


def test_every_picture_is_there():
    family = NormalizingFlow(Glow(features=4, depth=1, levels=2), SHAPE)
    pictures = family.figures(drawn(family), {}, batch())
    assert set(pictures) == {"interpolations", "reconstructions", "scales", "temperatures"}
    rows = pictures["reconstructions"][2:, 2:, 0].reshape(3, 6, 8, 6)[:, :4, :, :4]
    expected = np.asarray(batch()["image"][:8, ..., 0] * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(rows[0].transpose(1, 0, 2), expected)
    assert abs(rows[1].astype(int) - rows[0]).max() <= 1 and rows[2].max() <= 1
    one = NormalizingFlow(SMALL, SHAPE).figures
    assert "scales" not in one(drawn(NormalizingFlow(SMALL, SHAPE)), {}, batch())


def test_a_flow_is_built_without_a_config_and_learns():
    family = NormalizingFlow(Glow(features=4, depth=1, levels=1), SHAPE)
    images = np.random.RandomState(0).randint(0, 256, (10, *SHAPE)).astype(np.uint8)
    params, state = jax.jit(family.init)(jax.random.key(0), images)
    loss = jax.jit(lambda p: family.loss(p, state, batch(), RNGS)[0])
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert loss(jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)) < value
    assert family.num_init_examples == 256


# ---- Configs ----

CLASSES = tuple("0123456789")


def built(config):
    check_config(config, normalizing_flow.FIELDS, 1)
    return normalizing_flow.build(config, tuple(config.data.image_shape), CLASSES)


@pytest.mark.parametrize(
    "module,overrides,message",
    [
        (glow_mnist, {"data.pixels": "dequantized"}, "data.pixels='dequantized' must be unit"),
        (glow_mnist, {"model.levels": 3}, r"image_shape=\(28, 28, 1\) must be of sides .* of 8"),
        (realnvp_digits, {"model.scales": 5}, "sides that are multiples of 16"),
        (tarflow_mnist, {"model.head_dim": 36}, "model.width=96 must be a multiple of .*=36"),
        (glow_mnist, {"objective.noise": "unifrm"}, "did you mean 'uniform'"),
        (glow_mnist, {"objective.label_dropout": 0.1}, "label_dropout=0.1 must be 0 with"),
        (realnvp_digits, {"objective.noise": "gaussian"}, "objective.logit=0.05 must be 0 with"),
    ],
)
def test_a_mistake_is_one_line(module, overrides, message):
    config = module.get_config()
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message) as info:
        built(config)
    assert "\n" not in str(info.value)


def test_classes_are_needed_where_they_are_given():
    config = tarflow_mnist.get_config()
    with pytest.raises(UserError, match="class_conditional=True must be False: .*no classes"):
        normalizing_flow.build(config, (28, 28, 1), ())


GAUSSIAN = {"objective.noise": "gaussian"}
CLASSES_OF_TARFLOW = {"model.class_conditional": True}
CASES = {
    "model[tarflow].patch_size": Case(2),
    "model[tarflow].head_dim": Case(32),
    "model[realnvp].scales": Case(1),
    "model[glow].levels": Case(2),
    "model[maf].kind": Case("iaf"),
    "objective.noise": Case("gaussian"),
    "objective.logit": Case(0.1, off=GAUSSIAN),
    "objective.noise_std": Case(on=GAUSSIAN),
    "objective.noise_features": Case(on={"objective.noise": "variational"}),
    "objective.label_dropout": Case(on={"model.name": "tarflow", **CLASSES_OF_TARFLOW}),
    "sample.guidance": Case(
        on={"model.name": "tarflow", **CLASSES_OF_TARFLOW, "objective.label_dropout": 0.1}
    ),
    "sample.denoise": Case(on=GAUSSIAN),
}


def config_of(overrides, groups=()):
    config = normalizing_flow.default_config()
    name = dict(groups).get("model") or overrides.get("model.name", "realnvp")
    with config.unlocked():
        config.model = normalizing_flow.NETWORKS.select(name)
        config.update_from_flattened_dict({"data.image_shape": (32, 32, 1), **overrides})
    return config


OWN = [(label(groups, key), groups, key, f) for groups, key, f in leaves(normalizing_flow.FIELDS)]


@pytest.mark.parametrize("name,groups,key,field", OWN, ids=[x[0] for x in OWN])
def test_a_field_changes_what_is_built_or_is_refused(name, groups, key, field):
    case = CASES.get(name, Case())
    value = another(field) if case.value is None else case.value
    before = built(config_of(case.on, groups))
    after = built(config_of({**case.on, **case.also, key: value}, groups))
    assert described(before) != described(after)
    if field.only_with:
        config = config_of({**case.off, key: value}, groups)
        with pytest.raises(UserError, match=rf"config\.{key}=") as info:
            check_idle(config, merged(SHARED, normalizing_flow.FIELDS))
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", normalizing_flow.NETWORKS.groups)
def test_half_precision_reaches_networks(name):
    groups = {"model": name}
    full, half = (
        described(built(config_of({"compute_dtype": dtype}, groups)))
        for dtype in ("float32", "bfloat16")
    )
    assert full != half
