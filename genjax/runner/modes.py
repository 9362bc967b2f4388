"""What --mode=eval, sample and export do with a trained run."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from genjax import files, plots
from genjax.data.dataset import eval_batches
from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.runner.config import check_config
from genjax.runner.datasets import describe, find_sources, load_splits
from genjax.runner.evaluator import FullEvaluator, Sampler, sampled_labels
from genjax.runner.family import find_family, optional
from genjax.runner.figures import Drawer, save_figures, save_images
from genjax.runner.judge import Judge
from genjax.runner.provenance import protocol_of, provenance_of
from genjax.runner.report import format_numbers, print_report
from genjax.runner.restore import restored_run
from genjax.runner.terminal import say
from genjax.train.parallel import Parallel, in_main, is_main, main_first

Source = dict[str, str]


def evaluate(
    config: ConfigDict, workdir: str | Path, source: Source, step: str = "latest"
) -> dict[str, Any]:
    """Computes every number of a checkpoint again, writes eval_<step>.json, draws the figures."""
    run, state, step = restored_run(config, workdir, step)
    provenance = provenance_of(run, source)
    metrics, pictures = FullEvaluator(run)(run.eval_tree(state), last=True)
    folder = f"figures/step_{step:08d}"
    save_figures(Path(workdir) / folder, pictures, {**provenance, "step": step})
    report = {**provenance, "step": step, **metrics, "protocol": protocol_of(run)}
    if is_main():
        files.write_json(Path(workdir) / f"eval_{step:08d}.json", report)
    print_report(workdir, report)
    Drawer(run, Path(workdir), provenance, folder)(step, state)
    return report


def sample(config: ConfigDict, workdir: str | Path, source: Source, step: str = "latest") -> Any:
    """Does what the family's `sample` does; by default `sample_images`."""
    return optional(config, "sample", sample_images)(config, Path(workdir), source, step)


def sample_images(
    config: ConfigDict, workdir: str | Path, source: Source, step: str = "latest"
) -> np.ndarray:
    """Draws config.sample.num images of a checkpoint: a PNG each, and a grid of the first ones.

    Returns:
      uint8 [N, H, W, C].
    """
    run, state, step = restored_run(config, workdir, step)
    if run.family.sample is None:
        raise UserError(f"config.experiment='{config.experiment}' has nothing to sample")
    seed = config.sample.seed
    images = Sampler(run)(run.eval_tree(state), seed, np.arange(config.sample.num))
    arrays = {"images": images}
    class_names = run.train_data.class_names
    if run.family.sample_takes_labels:
        labels = sampled_labels(config, np.arange(len(images)), len(class_names))
        arrays.update(labels=labels, class_names=np.array(class_names))
    folder = Path(workdir) / "samples" / f"step_{step:08d}_seed_{seed}"
    provenance = {**provenance_of(run, source), "step": step, "seed": seed}
    save_images(folder, arrays, provenance, plots.grid(images[:256]))
    return images


def export(config: ConfigDict, workdir: str | Path, source: Source, step: str = "latest") -> Path:
    """Writes what others use of a checkpoint, as the end of training does: export/step_<step>/."""
    run, state, step = restored_run(config, workdir, step)
    if run.family.export is None:
        raise UserError(f"config.experiment='{config.experiment}' has nothing to export")
    folder = Path(workdir) / "export" / f"step_{step:08d}"
    tree = run.parallel.to_local(run.eval_tree(state))

    def write():
        folder.mkdir(parents=True, exist_ok=True)
        run.family.export(*tree, folder)

    in_main(write)
    return folder


def evaluate_images(
    config: ConfigDict, workdir: str | Path, source: Source, images: str
) -> dict[str, Any]:
    """Compares existing images with the data of a config, by config.eval.

    Args:
      config: of any run on that data.
      workdir: where eval_images_<fingerprint>.json goes.
      source: for the records.
      images: "folder:/path" of pictures, "/path/samples.npz" or "npz:/path" with uint8 `images`.
    """
    images = f"npz:{images}" if images.endswith(".npz") and ":" not in images else images
    generated = main_first(lambda: find_source(images, "all"))
    describe(generated)
    parallel = Parallel.create(config.parallel, config.num_devices)
    used = ("eval.", "data.bad_images")  # whatever the run itself does with them
    check_config(config, find_family(config.experiment).FIELDS, parallel.size, used)
    sources = main_first(lambda: find_sources(config))
    generated, train_data, eval_data = load_splits(config, generated, *sources)
    judge = Judge.create(config, parallel, train_data, eval_data)
    batches = (b["image"][b["mask"]] for b in eval_batches(generated, config.eval.batch_size))
    metrics, pictures = judge(batches, len(generated))
    protocol = judge.describe(
        len(generated), images=generated.name, images_sha256=generated.fingerprint
    )
    report = {**source, **metrics, "protocol": {"samples": protocol}}
    workdir = Path(workdir)
    if is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(workdir / f"eval_images_{generated.fingerprint[:12]}.json", report)
    save_figures(workdir / "figures" / "images", pictures, source)
    say(f"{generated.name}, {len(generated)} images:\n{format_numbers(metrics)}")
    return report
