"""GANs: which network learns when, on what, and that the state has everything a step changes."""

import functools
import importlib
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import gan_digits
from experiments.gan import gan
from experiments.gan.augmentation import DiffAugment
from experiments.gan.gan import Gan
from experiments.gan.penalties import Penalties
from genjax import rng
from genjax.errors import UserError
from genjax.models.mlp_gan import MlpDiscriminator, MlpGenerator
from genjax.objectives import penalties
from genjax.rng import Rngs
from genjax.runner.config import check_config
from genjax.runner.evaluator import Sampler
from genjax.runner.run import Run
from genjax.runner.train import train as train_config
from genjax.train.checkpoint import Checkpoints
from genjax.train.signals import StopOnSignal
from genjax.train.state import Ema, init_state

SOURCE = {"config_file": "a test", "arguments": ""}
CLASSES = ("a", "b", "c")
SHAPE = (4, 4, 1)

# Everything that a state can have, and everything that a step can do.
FULL = {
    "objective.loss": "non_saturating",
    "objective.label_smoothing": 0.1,
    "objective.d_steps": 2,
    "objective.r1": 0.5,
    "objective.r2": 0.0,
    "objective.penalty_interval": 3,
    "objective.lecam": 0.1,
    "objective.spectral_norm": True,
    "augment.name": "ada",
    "augment.p": 0.3,
    "augment.interval": 3,
    "augment.speed_images": 1000,
    "augment.policy": ("color",),
}


def tiny(**overrides):
    config = gan_digits.get_config("smoke")
    sizes = {"model.generator_features": (6, 5), "model.discriminator_features": (7,)}
    sizes |= {"model.latent_dim": 3, "batch_size": 8, "eval.standing_samples": 0}
    sizes |= {"eval.num_samples": 0, "eval.num_samples_in_loop": 0}
    config.update_from_flattened_dict({**sizes, **overrides})
    return config


def batch_of(size, step=0):
    index = jnp.arange(size)
    images = jnp.tanh(rng.normal(rng.per_example(jax.random.key(step), index), SHAPE))
    return {"image": images, "label": index % 3, "index": index, "slot": index}


def built(config, class_names=CLASSES):
    check_config(config, gan.FIELDS, 1)
    return gan.build(config, SHAPE, class_names)


def initialised(family, tx, ema):
    """(state at step 0, compiled train step)."""
    init_optimizer = functools.partial(family.init_optimizer, tx)
    make = lambda: init_state(0, family.init, init_optimizer, ema, family.averaged)

    def step(state, batch):
        return family.train_step(state, batch, Rngs(state.rng, state.step, batch["slot"]), tx, ema)

    return jax.jit(make)(), jax.jit(step)


def started(config):
    """(family, its step with plain gradient descent of the generator, the state at step 0)."""
    family = built(config)
    state, step = initialised(family, optax.sgd(config.optim.lr), Ema(0.5, warmup=False))
    return family, step, state


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("model.name", "dcgn", "config.model.name='dcgn' is not known; did you mean 'dcgan'"),
        ("model.latent_dim", 0, "at least 1"),
        ("model.generator_features", (8, 0), "at least 1"),
        ("model.norm_momentum", 1.0, r"in \[0, 1\)"),
        ("objective.loss", "hing", "did you mean 'hinge'"),
        ("objective.label_smoothing", 0.1, "0 with config.objective.loss=relativistic"),
        ("objective.d_steps", 0, "at least 1"),
        ("objective.d_steps", 3, "a multiple of devices x objective.d_steps = 3"),
        ("objective.d_lr_ratio", 0.0, "above 0"),
        ("objective.r1", -1.0, "at least 0"),
        ("objective.lecam", 1.0, "0 with config.objective.loss=relativistic"),
        ("optim.accumulate_steps", 2, "1 with config.model.name=mlp_gan: its batch norm"),
        ("augment.name", "adda", "did you mean 'ada'"),
        ("augment.name", "ada", "augment.target=0.6 must be 0 with config.objective"),
        (
            "augment.policy",
            ("color",),
            "augment.policy=.* must be .* with config.augment.name=none",
        ),
        ("augment.p", 1.5, r"in \[0, 1\]"),
        ("augment.interval", 0, "at least 1"),
        ("eval.standing_samples", -1, "at least 0"),
        ("data.pixels", "unit", "'symmetric'"),
    ],
)
def test_a_mistake_is_one_line(key, value, message):
    config = gan_digits.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message) as info:
        built(config)
    assert "\n" not in str(info.value)


def test_stages_in_float32_are_no_more_than_there_are():
    config = gan_digits.get_config()
    config.update_from_flattened_dict({"model.name": "r3gan", "model.float32_stages": 9})
    config.model.norm_momentum = gan.FIELDS["model"]["norm_momentum"].default
    config.eval.standing_samples = 0
    with pytest.raises(UserError, match="float32_stages=9 must be at most 2, the stages of"):
        built(config)


def test_a_game_with_classes_needs_some():
    with pytest.raises(UserError, match="no classes"):
        built(gan_digits.get_config(), ("one",))


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_a_gan_needs_no_config(loss):
    family = Gan(
        generator=MlpGenerator(SHAPE, (6, 5)),
        discriminator=MlpDiscriminator((7,)),
        image_shape=SHAPE,
        latent_dim=3,
        adversarial_loss=loss,
        penalties=Penalties(r1=0.5),
    )
    state, step = initialised(family, optax.adam(1e-3), Ema(0.9))
    new, metrics = step(state, batch_of(10))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics))
    for name in ("generator", "discriminator"):
        old, now = (jax.tree.leaves(s.params[name]) for s in (state, new))
        assert all((a != b).any() for a, b in zip(old, now) if a.ndim > 1)
    images = family.sample(new.eval_params, new.model_state, jax.random.split(jax.random.key(0), 2))
    assert images.shape == (2, *SHAPE)


def test_gradients_reach_only_the_network_that_learns():
    family = Gan(
        generator=MlpGenerator(SHAPE, (6, 5)),
        discriminator=MlpDiscriminator((7,)),
        image_shape=SHAPE,
        latent_dim=3,
        num_classes=3,
        adversarial_loss="relativistic",
        penalties=Penalties(r1=0.5, r2=0.5, gradient_penalty=0.3, spectral_norm=True),
        augmentation=DiffAugment(("translation",)),
    )
    params, state = jax.jit(family.init)(jax.random.key(0))
    batch = batch_of(6)
    y = jax.nn.one_hot(batch["label"], 3)
    rngs = Rngs(jax.random.key(1), 0, batch["slot"])

    def generated(params):
        z = rng.normal(rngs("latent"), (3,))
        return family.generate(params["generator"], state["generator"], z, y, train=True)[0]

    def of_discriminator(params):
        args = params["discriminator"], state, batch["image"], generated(params), y, rngs
        return family.discriminator_loss(*args)[0]

    def of_generator(params):
        return family.generator_loss(
            generated(params), params["discriminator"], state, batch["image"], y, rngs
        )

    for fn, learns, rests in (
        (of_discriminator, "discriminator", "generator"),
        (of_generator, "generator", "discriminator"),
    ):
        grads = jax.jit(jax.grad(fn))(params)
        assert all(jnp.all(g == 0.0) for g in jax.tree.leaves(grads[rests]))
        moved = [float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[learns])]
        assert sum(size > 0 for size in moved) >= len(moved) - 2  # biases cancel in pairs


def test_a_step_is_what_the_papers_say():
    """By hand: two updates of the discriminator, with R1 and smoothing, one of the generator."""
    config = tiny(**{"objective.loss": "non_saturating", "objective.label_smoothing": 0.2})
    config.objective.d_steps, config.objective.d_lr_ratio = 2, 0.5
    config.objective.r1, config.objective.r2, config.ema.decay = 0.7, 0.0, 0.5
    config.optim.name, config.optim.momentum, config.optim.lr = "sgd", 0.0, 0.3
    family, step, state = started(config)
    generator, discriminator = family.generator, family.discriminator
    batch = batch_of(8)
    new, metrics = step(state, batch)

    z = rng.normal(Rngs(state.rng, 0, batch["slot"])("latent"), (3,))
    shares = [slice(i, None, 2) for i in range(2)]
    stats, y = state.model_state["generator"], jax.nn.one_hot(batch["label"], 3)
    d, g = state.params["discriminator"], state.params["generator"]
    score = lambda d, x, y: discriminator.apply({"params": d}, x, y)

    def images(g, share):
        variables = {"params": g, **stats}
        return generator.apply(variables, z[share], y[share], True, mutable=["batch_stats"])

    for share in shares:
        fake, real = images(g, share)[0], batch["image"][share]

        def loss(d, fake=fake, real=real, y=y[share]):
            p, q = jax.nn.sigmoid(score(d, real, y)), jax.nn.sigmoid(score(d, fake, y))
            one = lambda x, y: score(d, x[None], y[None])[0]
            slopes = jax.vmap(jax.grad(one))(real, y)
            entropy = -jnp.mean(0.8 * jnp.log(p) + 0.2 * jnp.log(1 - p) + jnp.log(1 - q))
            return entropy + 0.35 * jnp.mean(jnp.sum(slopes**2, (1, 2, 3)))

        d = jax.tree.map(lambda p, grad: p - 0.15 * grad, d, jax.jit(jax.grad(loss))(d))

    def loss(g):
        fake, new_stats = images(g, shares[1])
        return -jnp.mean(jnp.log(jax.nn.sigmoid(score(d, fake, y[shares[1]])))), new_stats

    grads, new_stats = jax.jit(jax.grad(loss, has_aux=True))(g)
    g = jax.tree.map(lambda p, grad: p - 0.3 * grad, g, grads)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, new.params, {"generator": g, "discriminator": d})
    jax.tree.map(close, new.model_state, {"generator": new_stats})
    average = jax.tree.map(lambda a, b: (a + b) / 2, state.params["generator"], g)
    jax.tree.map(close, new.ema_params, {"generator": average})
    assert new.eval_params["discriminator"] is new.params["discriminator"]
    assert new.eval_params["generator"] is new.ema_params["generator"]
    assert set(metrics["grads"]) == {"generator", "discriminator"}


@pytest.mark.parametrize(
    "changes", [FULL, {"objective.loss": "relativistic", "objective.r1": 0.5, "objective.r2": 0.3}]
)
def test_a_step_in_parts_is_the_step(changes):
    """Of networks without batch norm; shares, pairs, penalties, averages and ADA stay the same."""
    sizes = {"model.name": "r3gan", "model.norm_momentum": 0.8, "batch_size": 16}
    sizes |= {"model.generator_features": (4,), "model.discriminator_features": (4,)}
    sizes |= {"model.group": 4, "optim.name": "sgd", "optim.lr": 0.1}
    ends = []
    for parts in (1, 4):
        config = tiny(**sizes, **changes, **{"optim.accumulate_steps": parts})
        _, step, state = started(config)
        state, metrics = step(state, batch_of(16))
        ends.append((state.params, state.model_state, state.ema_params, metrics))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), *ends)


def test_lazy_penalties_are_as_large_on_average():
    every = tiny(**{"objective.r1": 0.4, "objective.r2": 0.3})
    lazy = tiny(**{"objective.r1": 0.4, "objective.r2": 0.3, "objective.penalty_interval": 2})
    for config in (every, lazy):
        config.optim.name, config.optim.lr = "sgd", 1e-9  # so that nothing moves
    found = []
    for config in (every, lazy):
        _, step, state = started(config)
        values = []
        for _ in range(4):
            state, metrics = step(state, batch_of(8))
            values.append(float(metrics["penalty"]))
        found.append(values)
    np.testing.assert_allclose(found[1][::2], 2 * np.array(found[0][::2]), rtol=1e-5)
    assert found[1][1::2] == [0.0, 0.0]


def test_the_state_holds_all_that_a_step_changes():
    _, step, state = started(tiny(**FULL))
    signs = []
    for i in range(2):
        before = state
        state, metrics = step(state, batch_of(8, i))
        signs.append(float(metrics["augment_r_t"]))
    assert set(state.model_state) == {"generator", "spectral", "lecam", "ada"}
    # Four updates: p changed after three, by 3 x 4 images of 1,000; one sign is waiting.
    np.testing.assert_allclose(abs(state.model_state["ada"]["p"] - 0.3), 0.012, atol=1e-6)
    assert state.model_state["ada"]["steps"] == 1
    assert before.model_state["ada"]["steps"] == 2
    for name in ("lecam", "spectral"):
        old, new = (jax.tree.leaves(s.model_state[name]) for s in (before, state))
        assert all(jnp.any(a != b) for a, b in zip(old, new) if a.size > 1 or name == "lecam")
    weights, _ = penalties.spectral_normalize(
        state.params["discriminator"], state.model_state["spectral"]
    )
    assert np.linalg.norm(weights["Dense_0"]["kernel"], 2) < 1.5


def test_a_schedule_counts_training_steps_for_both_networks():
    config = tiny(**{"objective.d_steps": 4, "objective.d_lr_ratio": 0.5, "num_train_steps": 10})
    config.optim.name, config.optim.momentum, config.optim.schedule = "sgd", 0.0, "linear"
    tx = gan.discriminator_optimizer(config)
    params = {"w": jnp.zeros(())}
    state, rates = tx.init(params), []
    for _ in range(40):
        updates, state = tx.update({"w": -jnp.ones(())}, state, params)
        rates.append(float(updates["w"]))
    wanted = 0.5 * config.optim.lr * (1 - np.arange(40) // 4 / 10)
    np.testing.assert_allclose(rates, wanted, rtol=1e-5)


def test_standing_statistics_are_those_of_the_evaluated_parameters():
    config = tiny(**{"eval.standing_samples": 4000})
    family, step, state = started(config)
    for i in range(3):
        state, _ = step(state, batch_of(8, i))
    standing = jax.jit(family.standing_statistics)(state.eval_params, state.model_state)
    z = jax.random.normal(jax.random.key(9), (4000, 3))
    y = jax.nn.one_hot(jnp.arange(4000) % 3, 3)
    variables = {"params": state.eval_params["generator"]}
    images = lambda stats, train: family.generator.apply(
        {**variables, **stats}, z, y, train, mutable=["batch_stats"]
    )[0]
    wanted = images(state.model_state["generator"], True)  # statistics of these very images
    near, far = (
        float(jnp.abs(images(m["generator"], False) - wanted).mean())
        for m in (standing, state.model_state)
    )
    assert near < 0.01 < far


def test_image_i_is_one_image_and_walks_and_classes_are_drawn(tmp_path):
    run = Run.build(tiny(**{"sample.batch_size": 16, "eval.standing_samples": 32}))
    state = run.init()
    tree = run.eval_tree(state)
    sample = Sampler(run)
    images = sample(tree, 5, np.arange(20))
    np.testing.assert_array_equal(sample(tree, 5, [17]), images[17:18])
    pictures = run.family.figures(*tree, {})
    shapes = {name: picture.shape for name, picture in pictures.items()}
    assert shapes == {
        "walk_straight": (5 * 30 + 2, 10 * 30 + 2, 1),
        "walk_sphere": (5 * 30 + 2, 10 * 30 + 2, 1),
        "classes": (8 * 30 + 2, 10 * 30 + 2, 1),
    }
    straight, sphere = pictures["walk_straight"], pictures["walk_sphere"]
    np.testing.assert_array_equal(straight[:, :30], sphere[:, :30])  # the same ends
    assert (straight != sphere).any()


CONFIGS = (
    "gan_mnist",
    "rgan_mnist",
    "gan_stacked_mnist",
    "dcgan64",
    "sngan_cifar10",
    "r3gan_cifar10",
)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_fits_its_data(name):
    """Traced at full size: networks, losses, state; nothing is compiled."""
    config = importlib.import_module(f"configs.{name}").get_config()
    check_config(config, gan.FIELDS, 1)
    shape = tuple(config.data.image_shape)
    family = gan.build(config, shape, tuple("0123456789"))
    tx, ema = optax.adam(1e-3), Ema(0.9)
    init_optimizer = functools.partial(family.init_optimizer, tx)

    def init_and_step(images, labels):
        state = init_state(0, family.init, init_optimizer, ema, family.averaged)
        batch = {"image": images, "label": labels, "index": labels, "slot": labels}
        rngs = Rngs(state.rng, state.step, labels)
        return state, family.train_step(state, batch, rngs, tx, ema)[0]

    size = config.batch_size
    images = jax.ShapeDtypeStruct((size, *shape), jnp.float32)
    state, new = jax.eval_shape(init_and_step, images, jax.ShapeDtypeStruct((size,), jnp.int32))
    assert jax.tree.structure(state) == jax.tree.structure(new)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, new)
    assert jax.tree.all(same)


LAYOUTS = """
import json, sys
import jax, numpy as np
from genjax.data.dataset import train_batches
from genjax.runner.run import Run
from tests.experiments.gan.test_gan import FULL, tiny

def trained(kind, devices):
    config = tiny(**{**FULL, "model.generator_features": (64, 8)})
    config.objective.penalty_interval = 1
    config.parallel, config.num_devices, config.batch_size = kind, devices, 16
    config.eval.standing_samples = 64
    run = Run.build(config)
    p = run.parallel
    step = p.compile_train_step(run.train_step, jax.eval_shape(run.init))
    state, batch_at, out = p.init(run.init), train_batches(run.train_data, 16, 0), []
    for i in range(6):
        state, (metrics, _) = step(state, p.shard(batch_at(i)))
        found = p.fetch(metrics)
        out.append([float(found[k]) for k in ("loss", "loss_generator", "augment_p", "penalty")])
    params, stats = p.to_local(run.eval_tree(state))
    out.append([float(abs(np.asarray(x)).sum()) for x in jax.tree.leaves((params, stats))])
    return out

print(json.dumps([trained(*a) for a in (("fsdp", 2), ("pmap", 2))]))
"""


@pytest.mark.long
def test_a_global_batch_and_shares_of_it_agree(python):
    """Batch statistics, ADA's signs, anchors: over both devices, however a step is spread."""
    out = python(LAYOUTS, devices=2)
    assert out.returncode == 0, out.stderr
    whole, shares = json.loads(out.stdout)
    for a, b in zip(whole, shares, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_a_stopped_game_resumes_bit_for_bit(tmp_path, monkeypatch):
    """With ADA's probability, anchors, spectral vectors, lazy penalties, two updates a step."""
    options = {"num_train_steps": 7, "log_every_steps": 1, "checkpoint_every_steps": 4}
    config = tiny(**{**FULL, **options, "eval_every_steps": 5, "sample_every_steps": 0})

    def train(workdir, stop_at=None):
        def stop(signals, step):
            if step == stop_at:
                signals.received = signal.Signals.SIGTERM.name
            return step == stop_at

        monkeypatch.setattr(StopOnSignal, "stop", stop)
        assert (train_config(config, workdir, SOURCE) is None) == (stop_at is not None)

    def final(workdir):
        template = jax.eval_shape(Run.build(config).init)
        state, _ = Checkpoints(workdir / "checkpoints").restore(template)
        state = state.replace(rng=jax.random.key_data(state.rng))
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}

    train(tmp_path / "whole")
    expected = final(tmp_path / "whole")
    assert any("ada" in name for name in expected) and any("spectral" in n for n in expected)
    train(
        tmp_path / "stopped", stop_at=5
    )  # between changes of p and between penalties, at an evaluation
    train(tmp_path / "stopped")
    assert final(tmp_path / "stopped") == expected
    read = lambda name: (tmp_path / name / "metrics.jsonl").read_bytes()
    assert read("stopped") == read("whole")


def test_networks_that_start_with_kernels_of_zeros_train_with_spectral_normalisation():
    """Those of R3GAN do, in every block."""
    sizes = {"model.generator_features": (8,), "model.discriminator_features": (8,)}
    r3gan = {"model.name": "r3gan", "model.blocks": 1, "model.group": 4, **sizes}
    family = built(tiny(**r3gan, **{"objective.spectral_norm": True}))
    params, model_state = jax.jit(family.init)(jax.random.key(0))
    batch, rngs = batch_of(4), Rngs(jax.random.key(1), 0, jnp.arange(4))
    x, y = batch["image"], family.one_hot(batch["label"])

    @jax.jit
    def step(params, model_state):
        loss = lambda p: family.discriminator_loss(p, model_state, x, -x, y, rngs)
        (_, (metrics, vectors)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return params, {**model_state, "spectral": vectors}, metrics

    first = params["discriminator"]
    state = first, model_state
    for _ in range(3):
        *state, metrics = step(*state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first, state[0])
    assert all(jax.tree.leaves(moved))
