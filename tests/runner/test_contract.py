"""What the trainer promises to families that are still to come."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import experiments
from genjax import rng
from genjax.devices import mean_over_devices
from genjax.runner import modes
from genjax.runner.config import make_config
from genjax.runner.evaluator import Evaluator, Sampler
from genjax.runner.family import Family
from genjax.runner.fields import flatten
from genjax.runner.run import Run
from genjax.runner.train import train
from genjax.train.optimizers import keep_in_box

SOURCE = {"config_file": "a test", "arguments": ""}


class Game(Family):
    """Two networks on the mean image: one makes it, one scores it; each has its own optimizer."""

    def __init__(self, image_shape):
        self.image_shape = image_shape

    def init(self, key, images=None):
        zeros = jnp.zeros(self.image_shape)
        return {"generator": zeros, "discriminator": zeros}, {}

    def train_step(self, state, batch, rngs, tx, ema):
        g, d = state.params["generator"], state.params["discriminator"]
        real = mean_over_devices(jnp.mean(batch["image"], 0))
        grads = {"generator": -d, "discriminator": -(real - g) + d}
        new = {}
        for name in grads:
            old = state.params[name]
            updates, _ = tx.update(grads[name], state.opt_state[name], old)
            new[name] = optax.apply_updates(old, updates)
        metrics = {"loss": jnp.mean((real - g) ** 2)}
        return state.replace(step=state.step + 1, params=new), metrics

    def init_optimizer(self, tx, params):
        return {name: tx.init(p) for name, p in params.items()}

    def evaluate(self, params, model_state, batch, rngs):
        squares = (batch["image"] - params["generator"]) ** 2
        return {"mse": jnp.mean(squares, (1, 2, 3)), "one": jnp.ones(batch["image"].shape[0])}

    def sample(self, params, model_state, keys):
        return params["generator"] + 0.01 * rng.normal(keys, self.image_shape)


class PaintedGame(Game):
    """One whose samples are of the brightness of their class."""

    sample_takes_labels = True

    def sample(self, params, model_state, keys, labels):
        shape = (len(labels), *self.image_shape)
        return jnp.broadcast_to(labels[:, None, None, None] / 255.0, shape)


@pytest.fixture
def game(monkeypatch):
    """The config of a family that is none of ours, known by its line in the table."""
    module = types.ModuleType("a_game")
    module.FIELDS = {}
    module.default_config = lambda: make_config("game", {})
    module.smoke = lambda config: {}
    module.build = lambda config, image_shape, class_names: Game(image_shape)
    monkeypatch.setitem(sys.modules, "a_game", module)
    monkeypatch.setitem(experiments.FAMILIES, "game", "a_game")
    config = module.default_config()
    config.num_train_steps = 60
    config.optim.name, config.optim.lr, config.optim.momentum = "sgd", 0.2, 0.0
    config.data.image_shape = (8, 8, 1)
    return config


class HalfFrozen(Family):
    """One loss of two pictures; its optimizer moves only one of them, and keeps it below 0.2."""

    def __init__(self, image_shape):
        self.image_shape = image_shape

    def init(self, key, images=None):
        return {name: jnp.zeros(self.image_shape) for name in ("moves", "stays")}, {}

    def loss(self, params, model_state, batch, rngs, train=True):
        squares = (batch["image"] - params["moves"] - params["stays"]) ** 2
        return jnp.mean(squares), ({}, model_state)

    def optimizer(self, tx):
        moves = optax.chain(tx, keep_in_box(0.0, 0.2))
        parts = {"moves": moves, "stays": optax.set_to_zero()}
        return optax.partition(parts, {name: name for name in parts})

    def evaluate(self, params, model_state, batch, rngs):
        return {"highest": jnp.broadcast_to(params["moves"].max(), batch["slot"].shape)}


@pytest.mark.parametrize("parts", [1, 2])
def test_a_family_with_one_loss_adds_to_the_optimizer(game, monkeypatch, parts):
    half = lambda config, image_shape, class_names: HalfFrozen(image_shape)
    monkeypatch.setattr(sys.modules["a_game"], "build", half)
    game.optim.update(name="adam", momentum=0.9, accumulate_steps=parts)
    run = Run.build(game)
    state = run.init()
    batch = run.train_data.batch(*2 * [np.arange(game.batch_size)])
    for _ in range(3):
        state, _ = jax.jit(run.train_step.advance)(state, batch)
    assert np.isclose(state.params["moves"].max(), 0.2) and (state.params["stays"] == 0).all()


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_game_brings_its_own_step(game, tmp_path, kind):
    game.parallel = kind
    report = train(game, tmp_path, SOURCE)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    images = Run.build(game).eval_data.images / 255.0
    assert report["eval/mse"] < 1.05 * np.mean((images - images.mean(0)) ** 2)
    assert report["eval/one"] == 1.0
    assert lines[0]["train/loss"] > 0
    assert not (tmp_path / "figures" / "manifold.png").exists()
    assert (tmp_path / "samples" / "step_00000060.png").exists()


def test_evaluation_does_not_depend_on_its_batch_size(game, tmp_path):
    run = Run.build(game)
    params = jax.tree.map(lambda x: x + 0.3, run.init().params)
    values = []
    for size in (7, 100, 382, 500):
        run.config.eval.batch_size = size
        values.append(Evaluator(run)((params, {}))[0])
    for value in values:
        assert value["eval/one"] == 1.0
        np.testing.assert_allclose(value["eval/mse"], values[0]["eval/mse"], rtol=1e-6)


def test_image_i_of_a_seed_is_one_image(smoke_config):
    run = Run.build(smoke_config())
    state = run.init()
    tree = (state.params, state.model_state)
    sample = Sampler(run)
    whole = sample(tree, 5, np.arange(40))
    assert whole.shape == (40, 28, 28, 1) and whole.dtype == np.uint8
    np.testing.assert_array_equal(sample(tree, 5, [17]), whole[17:18])
    np.testing.assert_array_equal(sample(tree, 5, np.arange(30, 40)), whole[30:])
    assert (sample(tree, 6, [17]) != whole[17:18]).any()
    run.config.sample.batch_size = 4
    np.testing.assert_array_equal(Sampler(run)(tree, 5, np.arange(40)), whole)


def test_a_sampler_of_classes_takes_all_in_turn_or_one(game, tmp_path, monkeypatch):
    painted = lambda config, image_shape, class_names: PaintedGame(image_shape)
    monkeypatch.setattr(sys.modules["a_game"], "build", painted)
    train(game, tmp_path, SOURCE)
    game.sample.num, game.sample.batch_size = 25, 8
    for label, expected in ((-1, np.arange(25) % 10), (3, np.full(25, 3))):
        game.sample.label = label
        images = modes.sample(game, tmp_path, SOURCE)
        np.testing.assert_array_equal(images[:, 0, 0, 0], expected)
        file = np.load(tmp_path / "samples" / "step_00000060_seed_0.npz")
        np.testing.assert_array_equal(file["labels"], expected)
        np.testing.assert_array_equal(file["images"], images)
        assert len(file["class_names"]) == 10


def test_seeds_are_summarised(game, tmp_path):
    game.num_seeds, game.num_train_steps = 3, 2
    summary = train(game, tmp_path, SOURCE)
    reports = [json.loads((tmp_path / f"seed_{s}" / "report.json").read_text()) for s in range(3)]
    values = [r["eval/mse"] for r in reports]
    assert summary["eval/mse"]["values"] == values
    np.testing.assert_allclose(summary["eval/mse"]["mean"], np.mean(values))
    np.testing.assert_allclose(summary["eval/mse"]["std"], np.std(values, ddof=1), atol=1e-12)


@pytest.mark.long
def test_a_profile_is_written_on_request(launch, tmp_path):
    """In a process of its own, as for a user: JAX's profiler can crash the second time in one.

    The run ends before the profile would.
    """
    profile = ["--config.profile.start_step=6", "--config.profile.num_steps=100"]
    config = ["--config=configs/vae_digits.py:smoke", "--config.eval.num_samples=0"]
    out = launch(*config, f"--workdir={tmp_path}", "--config.sample_every_steps=0", *profile)
    assert out.returncode == 0, out.stderr
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_workdir_tells_the_whole_story(smoke_config, tmp_path):
    config = smoke_config(**{"checkpoint.best_metric": "eval/neg_elbo_nats"})
    report = train(config, tmp_path, SOURCE)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert flatten(stored["config"]) == flatten(config)
    assert "jax" in (tmp_path / "env.txt").read_text()
    for name in ("curves", "reconstructions", "manifold"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert picture.text["genjax:config_file"] == SOURCE["config_file"]
            assert np.asarray(picture).std() > 1
    for key in ("eval/neg_elbo_nats", "protocol", "num_parameters", "images_per_second", "devices"):
        assert key in report
    total = report["eval/recon_nats"] + report["eval/kl_nats"]
    np.testing.assert_allclose(report["eval/neg_elbo_nats"], total, rtol=1e-6)

    for step in ("latest", "best", "4"):
        again = modes.evaluate(config, tmp_path, SOURCE, step)
        if step == "latest":
            assert again["eval/neg_elbo_nats"] == report["eval/neg_elbo_nats"]
    modes.sample(config, tmp_path, SOURCE)
    files = sorted((tmp_path / "samples" / "step_00000008_seed_0").iterdir())
    assert len(files) == config.sample.num
    with Image.open(files[3]) as picture:
        assert picture.text["genjax:index"] == "3" and picture.text["genjax:step"] == "8"
