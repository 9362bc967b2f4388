"""Pictures of a run."""

import numpy as np

from genjax import plots
from genjax.runner.figures import through_training
from genjax.runner.workdir import samples_png


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
