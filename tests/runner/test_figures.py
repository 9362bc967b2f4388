"""Pictures of a run."""

import numpy as np

from genjax import plots
from genjax.runner.figures import Drawer, through_training
from genjax.runner.workdir import samples_png
from genjax.train.logs import NoLog
from genjax.train.state import TrainState


def test_a_strip_shows_the_same_noise_through_training(tmp_path):
    assert through_training(tmp_path, (4, 5, 3)) is None
    images = np.random.default_rng(0).integers(0, 255, (12, 23, 4, 5, 3), np.uint8)
    for step, some in enumerate(images):
        path = samples_png(tmp_path, step)
        plots.save_png(path, plots.grid(some), {})
        np.testing.assert_array_equal(plots.cells(plots.grid(some), (4, 5, 3), 23), some)
    chosen = images[[0, 1, 2, 4, 5, 6, 7, 9, 10, 11], :10].reshape(-1, 4, 5, 3)
    strip = through_training(tmp_path, (4, 5, 3))
    np.testing.assert_array_equal(strip, plots.grid(chosen, 10))


class Unlucky:
    """Stands for all that a drawer needs of a run, and a log: nothing of it can draw."""

    def __getattr__(self, name):
        return self

    def __call__(self, *args, **kwargs):
        raise ValueError("nothing can be drawn\nat all")


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch, capsys):
    drawer, run = Drawer.__new__(Drawer), Unlucky()
    run.eval_tree = run.parallel.to_local = lambda state: ({}, {})
    run.config.sample.num, run.config.sample.seed = 4, 0
    drawer._run, drawer._sampler, drawer._workdir = run, run, tmp_path
    drawer._examples, drawer._provenance, drawer._figures = {"index": [0]}, {}, tmp_path
    state = TrainState.__new__(TrainState)
    assert drawer(3, state)
    drawer._sampler = lambda *args: np.zeros((4, 2, 2, 1), np.uint8)
    monkeypatch.setattr(plots, "save_png", run)
    assert drawer(4, state, log=NoLog())
    lines = capsys.readouterr().err.splitlines()
    assert all("could not draw" in x and "nothing can be drawn at all" in x for x in lines)
    for what in ("figures of step 3", "samples of step 3", "step_00000004.png"):
        assert any(what in line for line in lines), what
    drawer._sampler = lambda *args: None
    assert not drawer(5, state, stop=lambda: True)
