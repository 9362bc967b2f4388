"""Samples that are not numbers: no picture, no number of them, and no step lost for one."""

import contextlib
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.vae.vae import Vae
from genjax import plots
from genjax.plots import PixelsNotFinite
from genjax.runner.evaluator import FullEvaluator, Sampler
from genjax.runner.figures import Drawer
from genjax.runner.run import Run
from genjax.runner.trainer import Trainer

SOURCE = {"config_file": "a test", "arguments": ""}
BAD = 5  # image 5 of every 8 of a batch


@pytest.fixture
def poisoned(monkeypatch):
    """Makes some samples of the family NaN, or infinite."""
    sample = Vae.sample

    def make(bad=math.nan):
        def some_bad(self, params, model_state, keys, *labels):
            images = sample(self, params, model_state, keys, *labels)
            number = jnp.arange(len(images)).reshape(-1, 1, 1, 1)
            return jnp.where(number % 8 == BAD, bad, images)

        monkeypatch.setattr(Vae, "sample", some_bad)

    return make


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sampler_names_the_images_by_their_numbers(smoke_config, poisoned, bad):
    poisoned(bad)
    run = Run.build(smoke_config())
    tree, sampler = run.eval_tree(run.start()), Sampler(run)
    with pytest.raises(PixelsNotFinite, match=r"2 of 16 images of seed 3 \(number 105, 113\)"):
        sampler(tree, 3, np.arange(100, 120))
    assert sampler(tree, 3, np.arange(BAD)).shape == (BAD, 28, 28, 1)  # none is bad


def test_no_distance_of_black_images_is_reported(smoke_config, poisoned, capsys):
    poisoned()
    options = {"eval.num_samples": 32, "eval.metrics": ("fd", "pr")}
    run = Run.build(smoke_config(**options))
    tree = run.eval_tree(run.start())
    with pytest.raises(PixelsNotFinite, match="2 of 16 images of seed 0"):
        FullEvaluator(run)(tree, last=True)
    run = Run.build(smoke_config(**options, **{"nonfinite.policy": "skip"}))
    numbers, _ = FullEvaluator(run)(tree, last=True)
    assert "warning: 2 of 16 images of seed 0" in capsys.readouterr().err
    names = run.judge.names(32)
    assert len(names) == 3 and all(math.isnan(numbers[f"eval/{name}"]) for name in names)
    assert all(math.isfinite(v) for k, v in numbers.items() if k[5:] not in names)


def test_a_drawer_saves_the_other_pictures(smoke_config, poisoned, monkeypatch, tmp_path):
    run = Run.build(smoke_config())
    state = run.start()
    with monkeypatch.context() as patch:
        patch.setattr(Vae, "figures", lambda *args: {"x": plots.to_uint8([math.nan])})
        with pytest.raises(PixelsNotFinite, match="1 of 1 images"):
            Drawer(run, tmp_path, SOURCE)(0, state)
    assert (tmp_path / "samples" / "step_00000000.png").exists()
    poisoned()
    with pytest.raises(PixelsNotFinite, match="images of seed 0"):
        Drawer(run, tmp_path, SOURCE)(1, state)
    assert (tmp_path / "figures" / "reconstructions.png").exists()
    assert not (tmp_path / "samples" / "step_00000001.png").exists()


def test_training_goes_on_without_the_picture(capsys):
    def drawer(step, state, log, stop):
        raise PixelsNotFinite("1 of 1 images: not finite")

    trainer = Trainer.__new__(Trainer)
    trainer.position = types.SimpleNamespace(step=4, state=None)
    trainer.record = types.SimpleNamespace(paused=contextlib.nullcontext, log=None)
    trainer.drawer = drawer
    assert trainer.draw()
    assert "warning: step 4: 1 of 1 images: not finite" in capsys.readouterr().err


def test_parameters_that_are_not_numbers_draw_nothing(smoke_config):
    run = Run.build(smoke_config())
    params, model_state = run.eval_tree(run.start())
    params = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    with pytest.raises(PixelsNotFinite, match="16 of 16"):
        Sampler(run)((params, model_state), 0, np.arange(16))
