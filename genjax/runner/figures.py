"""Pictures that a run saves: samples, the family's figures, and where they come from."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from genjax import files, plots, rng
from genjax.metrics.arrays import sample_order
from genjax.runner.evaluator import Sampler, Stop, never
from genjax.runner.run import Run
from genjax.runner.terminal import say, unless_it_fails
from genjax.runner.workdir import samples_png
from genjax.train.logs import MetricLog, NoLog
from genjax.train.parallel import is_main
from genjax.train.state import TrainState

NUM_FIGURE_EXAMPLES = 64
MAX_IN_GRID = 256
STRIP_ROWS, STRIP_COLUMNS = 10, 10  # of the strip of samples through training

Provenance = dict[str, Any]


class Drawer:
    """Samples and the family's figures at a step.

    Args:
      run: what is drawn.
      workdir: the samples go to its samples/.
      provenance: recorded in every PNG file.
      figures: the folder in `workdir` that the family's figures go to.
    """

    def __init__(self, run: Run, workdir: Path, provenance: Provenance, figures: str = "figures"):
        self._run, self._workdir, self._provenance = run, workdir, provenance
        self._figures = workdir / figures
        self._sampler = Sampler(run) if run.family.sample else None
        # The first images of a folder of classes are all of one class.
        index = sample_order(len(run.eval_data))[:NUM_FIGURE_EXAMPLES]
        self._examples = run.eval_data.batch(index, np.arange(len(index)))

    def __call__(
        self,
        step: int,
        state: TrainState,
        log: MetricLog | NoLog | None = None,
        stop: Stop = never,
    ) -> bool:
        """Draws and saves; returns False if a stop cut it short.

        Raises:
          PixelsNotFinite: a picture has NaN or infinity; the others are saved.
        """
        run, provenance = self._run, {**self._provenance, "step": step}
        pictures, tree, refused = {}, run.eval_tree(state), None
        if run.family.figures:
            local = run.parallel.to_local(tree)
            if is_main():
                draw = lambda: self._family_figures(*local)
                try:
                    pictures = unless_it_fails(f"the figures of step {step}", draw) or {}
                except plots.PixelsNotFinite as error:  # other processes go on to sample
                    refused = error
            save_figures(self._figures, pictures, provenance)
        if self._sampler:
            config = run.config.sample
            count = min(config.num, MAX_IN_GRID)
            draw = lambda: self._sampler(tree, config.seed, np.arange(count), stop)
            alone = jax.process_count() == 1  # others would wait for a process that failed
            images = unless_it_fails(f"samples of step {step}", draw) if alone else draw()
            if images is None and (stop() or not alone):
                return False
            if images is not None:
                pictures["samples"] = plots.grid(images)
                path = samples_png(self._workdir, step)
                save_png(path, pictures["samples"], {**provenance, "seed": config.seed})
        if log:
            for name, picture in pictures.items():
                write = functools.partial(log.write_image, step, f"figures/{name}", picture)
                unless_it_fails(f"{name} for TensorBoard", write)
        if refused:
            raise refused
        return True

    def _family_figures(self, params: Any, model_state: Any) -> dict[str, np.ndarray]:
        run, rngs = self._run, rng.Rngs(jax.random.key(0), 0, jnp.asarray(self._examples["index"]))
        batch = run.transform(jax.tree.map(jnp.asarray, self._examples), rngs, train=False)
        return run.family.figures(params, model_state, batch)


def save_figures(folder: Path, pictures: dict[str, np.ndarray], provenance: Provenance) -> None:
    """Saves pictures by name."""
    for name, picture in pictures.items():
        save_png(folder / f"{name}.png", picture, provenance)


def save_png(path: Path, picture: np.ndarray, provenance: Provenance) -> None:
    """Saves a picture in the main process; one that cannot be written does not end a run."""
    if not is_main():
        return
    unless_it_fails(str(path), lambda: plots.save_png(path, picture, provenance))


def save_images(
    folder: Path, arrays: dict[str, np.ndarray], provenance: Provenance, picture: np.ndarray
) -> None:
    """Saves arrays["images"] as a PNG each, all arrays as FOLDER.npz, a picture as FOLDER.png."""
    images = arrays["images"]
    if is_main():
        for i, image in enumerate(images):
            plots.save_png(folder / f"{i:06d}.png", image, {**provenance, "index": i})
        plots.save_png(folder.with_suffix(".png"), picture, provenance)
        with files.whole_file(folder.with_suffix(".npz")) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
    say(f"{len(images)} images in {folder} and {folder}.npz, a grid in {folder}.png")


def through_training(workdir: Path, image_shape: tuple[int, int, int]) -> np.ndarray | None:
    """Puts the first samples of up to ten steps below each other, always of the same noise.

    Returns:
      uint8 picture, or None where samples were drawn less than twice.
    """
    paths = sorted((Path(workdir) / "samples").glob("step_????????.png"))
    if len(paths) < 2:
        return None
    rows = []
    for i in np.unique(np.linspace(0, len(paths) - 1, STRIP_ROWS).round().astype(int)):
        with Image.open(paths[i]) as picture:
            pixels = np.asarray(picture).reshape(*picture.size[::-1], image_shape[-1])
        rows.append(plots.cells(pixels, image_shape, STRIP_COLUMNS))
    columns = min(map(len, rows))  # `config.sample` may have changed during training
    return plots.grid(np.concatenate([row[:columns] for row in rows]), columns)
