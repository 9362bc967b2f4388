"""What a trained model is worth and what it draws: numbers, samples, figures, for every family."""

import collections
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.config import validate
from experiments.judge import IN_LOOP, Judge
from experiments.run import Run, completed, find_sources, hook, say, warn
from experiments.workdir import (
    check_config,
    check_data,
    check_folder,
    check_restored,
    open_checkpoints,
)
from genjax import files, plots, rng
from genjax.data.dataset import eval_batches, load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.train.parallel import Parallel, in_main, is_main, main_first

NUM_FIGURE_EXAMPLES = 64
STRIP_ROWS, STRIP_COLUMNS = 10, 10  # of the strip of samples through training


def make_evaluator(run):
    """Returns (tree, stop) -> ({"eval/...": float}, {figure: picture}) over the whole split.

    `tree` is (params, model_state) on the devices; `stop()` is asked before each batch: once it is
    true, in any process, the result is None. Noise is keyed by an example's place in the split, so
    the numbers do not depend on the batch size or the devices.
    """

    def eval_step(tree, batch):
        rngs = rng.Rngs(jax.random.key(0), 0, batch["index"])
        stop = batch.pop("stop")
        values = run.experiment.eval_fn(*tree, run.transform(batch, rngs, train=False), rngs)
        return {**values, "stop": stop}

    mapped = run.parallel.compile_map(eval_step)
    size = run.parallel.round_up(run.config.eval.batch_size)

    def evaluate(tree, stop=_never):
        collected = collections.defaultdict(list)
        for batch in eval_batches(run.eval_data, size, run.parallel.rows(size)):
            mask = batch.pop("mask")
            values = mapped(tree, {**batch, "stop": np.full(len(batch["index"]), stop())})
            if values.pop("stop").any():
                return None
            for name, value in values.items():
                collected[name].append(value[mask])
        values = {name: np.concatenate(parts) for name, parts in collected.items()}
        numbers = run.experiment.summarize(values)
        pictures = {}
        if run.experiment.eval_figures and is_main():
            pictures = run.experiment.eval_figures(values)
        return {f"eval/{name}": float(number) for name, number in numbers.items()}, pictures

    return evaluate


def make_sampler(run):
    """Returns (tree, seed, indices, stop) -> uint8 images; image i of a seed is always the same.

    `stop` is as in `make_evaluator`. With classes, image i is of class i modulo their number, or
    all are of `config.sample.label`.
    """
    num_classes = len(run.train_data.class_names)

    def sample_step(tree, batch):
        key = rng.stream(jax.random.key(batch["seed"][0]), "sample")
        keys = rng.per_example(key, batch["index"])
        labels = [batch["label"]] if run.experiment.sample_classes else []
        images = run.experiment.sample(*tree, keys, *labels)
        return {"image": images, "stop": batch["stop"]}

    mapped = run.parallel.compile_map(sample_step)
    size = sampler_batch(run)
    rows = run.parallel.rows(size)

    def sample(tree, seed, indices, stop=_never):
        out = []
        for start in range(0, len(indices), size):
            # Always whole batches: how many images are wanted does not change how one is computed.
            index = np.resize(np.asarray(indices[start : start + size], np.int32), size)[rows]
            batch = {"index": index, "seed": np.full(len(index), seed, np.uint32)}
            batch["label"] = sampled_labels(run.config, index, num_classes)
            made = mapped(tree, {**batch, "stop": np.full(len(index), stop())})
            if made["stop"].any():
                return None
            out.append(plots.to_uint8(made["image"]))
        return np.concatenate(out)[: len(indices)]

    return sample


def sampler_batch(run):
    """How many images a sampler draws at a time."""
    return run.parallel.round_up(run.config.sample.batch_size)


def sampled_labels(config, index, num_classes):
    """int32 [n]: the classes of the images `index` of a seed."""
    if config.sample.label >= 0:
        return np.full(len(index), config.sample.label, np.int32)
    return np.asarray(index, np.int32) % max(num_classes, 1)


def make_judge(run):
    """Returns (tree, num_images, metrics, stop) -> ({"eval/...": float}, {figure: picture}).

    `stop` and None are as in `make_evaluator`; `metrics` None stands for all that config.eval asks.
    """
    sample = make_sampler(run)
    size = sampler_batch(run)

    def judge(tree, num_images, metrics=None, stop=_never):
        def batches():
            for start in range(0, num_images, size):
                index = np.arange(start, min(start + size, num_images))
                images = sample(tree, run.config.eval.seed, index, stop)
                if images is None:
                    raise _Stopped
                yield images

        try:
            return run.judge(batches(), num_images, metrics)
        except _Stopped:
            return None

    return judge


class _Stopped(Exception):
    """A signal came while images were drawn."""


def make_whole_evaluator(run):
    """Returns (tree, last, stop) -> as `make_evaluator`, with the numbers of generated images.

    `last`: whether it is the end of a run, or an evaluation of its own: then with all of them.
    """
    evaluator = make_evaluator(run)
    judge = make_judge(run) if run.judge else None
    config = run.config.eval

    def evaluate(tree, last, stop=_never):
        found = evaluator(tree, stop)
        if found is None:
            return None
        numbers, pictures = found
        asked = [(config.num_samples_in_loop, IN_LOOP)] + [(config.num_samples, None)] * last
        for num_images, metrics in asked:
            if num_images:
                judged = judge(tree, num_images, metrics, stop)
                if judged is None:
                    return None
                numbers, pictures = {**numbers, **judged[0]}, {**pictures, **judged[1]}
        return numbers, pictures

    return evaluate


def _never():
    return False


def make_drawer(run, workdir, provenance, figures="figures"):
    """Returns (step, state, log=None, stop) -> whether it drew: samples and the family's figures.

    `figures` is the folder in `workdir` that the latter go to.

    `stop` is as in `make_evaluator`.
    """
    sample = make_sampler(run) if run.experiment.sample else None
    count = min(NUM_FIGURE_EXAMPLES, len(run.eval_data))
    host_batch = run.eval_data.batch(np.arange(count), np.arange(count))

    def draw(step, state, log=None, stop=_never):
        told = {**provenance, "step": step}
        pictures, tree = {}, run.eval_tree(state)
        if run.experiment.figures:
            one = run.parallel.to_local(tree)
            if is_main():
                rngs = rng.Rngs(jax.random.key(0), 0, jnp.asarray(host_batch["index"]))
                batch = run.transform(jax.tree.map(jnp.asarray, host_batch), rngs, train=False)
                pictures = run.experiment.figures(*one, batch)
            save_figures(workdir / figures, pictures, told)
        if sample:
            config = run.config.sample
            images = sample(tree, config.seed, np.arange(min(config.num, 256)), stop)
            if images is None:
                return False
            pictures["samples"] = plots.grid(images)
            told = {**told, "seed": config.seed}
            save_png(samples_png(workdir, step), pictures["samples"], told)
        if log:
            for name, picture in pictures.items():
                log.write_image(step, f"figures/{name}", picture)
        return True

    return draw


def save_figures(folder, pictures, told):
    """Saves pictures by name."""
    for name, picture in pictures.items():
        save_png(folder / f"{name}.png", picture, told)


def samples_png(workdir, step):
    """Where the samples of a step go."""
    return Path(workdir) / "samples" / f"step_{step:08d}.png"


def through_training(workdir, image_shape):
    """The first samples of a run, always of the same noise, a row for each of up to ten steps.

    Returns:
      uint8 picture, or None where samples were drawn once at most.
    """
    paths = sorted((Path(workdir) / "samples").glob("step_????????.png"))
    if len(paths) < 2:
        return None
    rows = []
    for i in np.unique(np.linspace(0, len(paths) - 1, STRIP_ROWS).round().astype(int)):
        with Image.open(paths[i]) as picture:
            shown = np.asarray(picture).reshape(*picture.size[::-1], image_shape[-1])
        rows.append(plots.cells(shown, image_shape, STRIP_COLUMNS))
    columns = min(map(len, rows))  # `config.sample` may have changed on the way
    return plots.grid(np.concatenate([row[:columns] for row in rows]), columns)


def save_png(path, picture, told):
    """Saves a picture in the main process; one that cannot be written does not end a run."""
    if not is_main():
        return
    try:
        plots.save_png(path, picture, told)
    except OSError as error:
        warn(f"could not write {path}: {error}")


def provenance_of(run, source):
    """What the PNG files and report.json say about where they come from."""
    return {**source, "train_seed": run.config.seed, "parameters": which_parameters(run)}


def which_parameters(run):
    """ "ema" or "raw": whose parameters are evaluated and sampled."""
    ema = run.config.ema
    return "ema" if ema.decay > 0 or ema.half_life_images > 0 else "raw"


def protocol_of(run):
    """How the numbers of a report were made."""
    data = run.config.data
    pixels = "binarized_static" if data.pixels.startswith("binarized") else data.pixels
    told = {
        "data": f"{run.eval_data.name}:{run.eval_data.split}",
        "data_sha256": run.eval_data.fingerprint,
        "num_examples": len(run.eval_data),
        "num_skipped": len(run.eval_data.skipped),
        "pixels": pixels,
        "parameters": which_parameters(run),
    }
    if run.experiment.frozen:
        told["frozen"] = run.experiment.frozen
    if run.judge:
        asked = run.config.eval
        count = asked.num_samples or asked.num_samples_in_loop
        told["samples"] = run.judge.describe(count, seed=asked.seed)
    return told


def restored(config, workdir, step, allow=("eval.",)):
    """A run and the state of one of its checkpoints; step is a number, "latest" or "best".

    Where there is no run yet, but a config.init_from, that is what it would begin with.

    `allow`: beginnings of keys of the config that may differ from those it was trained with.
    """
    if config.get("init_from") and not _holds_run(config, workdir, allow):
        check_folder(Path(workdir))
        run = Run.build(completed(config))
        state = run.begin()
        say(f"{workdir} holds no run yet: this is what it would begin with")
        main_first(lambda: Path(workdir).mkdir(parents=True, exist_ok=True))
        return run, state, 0
    run, state = saved_state(config, workdir, step, allow)
    return run, run.whole(run.parallel.from_global(state)), int(state.step)


def _holds_run(config, workdir, allow):
    """Whether a workdir holds a run of this config; refuses one of another."""
    if config.num_seeds > 1:
        raise UserError(
            f"config.num_seeds={config.num_seeds}: name one of them, for instance without :seeds "
            f"and with --config.seed={config.seed} --workdir={workdir}/seed_{config.seed}"
        )
    return check_config(Path(workdir), completed(config), allow)


def saved_state(config, workdir, step, allow):
    """Likewise, but as it was saved: (run, arrays of the whole run, without what is frozen)."""
    workdir, config = Path(workdir), completed(config)
    if not _holds_run(config, workdir, allow):
        raise UserError(f"{workdir} holds no run; train it first, or name another --workdir")
    run = Run.build(config)
    check_data(workdir, run)
    checkpoints = open_checkpoints(config, workdir, read_only=True)
    if checkpoints.empty():
        raise UserError(f"{workdir} has no checkpoint yet; train it first")
    chosen = {"latest": lambda: None, "best": checkpoints.best_step}.get(step, lambda: int(step))
    state, meta = checkpoints.restore(run.template(), chosen())
    check_restored(workdir, meta, run, allow)
    return run, state


def evaluate(config, workdir, source, step="latest"):
    """Computes every number of a checkpoint again, writes eval_<step>.json, draws the figures."""
    run, state, step = restored(config, workdir, step)
    provenance = provenance_of(run, source)
    tree = run.eval_tree(state)
    metrics, pictures = make_whole_evaluator(run)(tree, last=True)
    figures = Path(workdir) / "figures" / f"step_{step:08d}"
    save_figures(figures, pictures, {**provenance, "step": step})
    report = {**provenance, "step": step, **metrics, "protocol": protocol_of(run)}
    if is_main():
        files.write_json(Path(workdir) / f"eval_{step:08d}.json", report)
    make_drawer(run, Path(workdir), provenance, f"figures/step_{step:08d}")(step, state)
    say_report(workdir, report)
    return report


def sample(config, workdir, source, step="latest"):
    """What --mode=sample does: `sample_new`, if the family has nothing else to do."""
    return hook(config, "sample", sample_new)(config, Path(workdir), source, step)


def sample_new(config, workdir, source, step="latest"):
    """Draws config.sample.num images of a checkpoint: a PNG each, and a grid of the first ones."""
    run, state, step = restored(config, workdir, step)
    if run.experiment.sample is None:
        raise UserError(f"config.experiment='{config.experiment}' has nothing to sample")
    seed = config.sample.seed
    tree = run.eval_tree(state)
    images = make_sampler(run)(tree, seed, np.arange(config.sample.num))
    told = {**provenance_of(run, source), "step": step, "seed": seed}
    arrays = {"images": images}
    class_names = run.train_data.class_names
    if run.experiment.sample_classes:
        labels = sampled_labels(config, np.arange(len(images)), len(class_names))
        arrays.update(labels=labels, class_names=np.array(class_names))
    folder = Path(workdir) / "samples" / f"step_{step:08d}_seed_{seed}"
    save_images(folder, arrays, told, plots.grid(images[:256]))
    return images


def save_images(folder, arrays, told, picture):
    """Saves "images" of some arrays, a PNG each, all arrays as FOLDER.npz, a picture of them."""
    images = arrays["images"]
    if is_main():
        for i, image in enumerate(images):
            plots.save_png(folder / f"{i:06d}.png", image, {**told, "index": i})
        plots.save_png(folder.with_suffix(".png"), picture, told)
        with files.whole_file(folder.with_suffix(".npz")) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
    say(f"{len(images)} images in {folder} and {folder}.npz, a grid in {folder}.png")


def export(config, workdir, step="latest"):
    """Writes what others use of a checkpoint, as the end of training does: export/step_<step>/."""
    run, state, step = restored(config, workdir, step)
    if run.experiment.export is None:
        raise UserError(f"config.experiment='{config.experiment}' has nothing to export")
    folder = Path(workdir) / "export" / f"step_{step:08d}"
    tree = run.parallel.to_local(run.eval_tree(state))

    def write():
        folder.mkdir(parents=True, exist_ok=True)
        run.experiment.export(*tree, folder)

    in_main(write)
    return folder


def evaluate_images(config, workdir, source, images):
    """Compares images that are there already with the data of a config, by config.eval.

    Args:
      images: "folder:/path" of pictures, "/path/samples.npz" or "npz:/path" with uint8 `images`.
    """
    images = f"npz:{images}" if images.endswith(".npz") and ":" not in images else images
    found = find_source(images, "all")
    parallel = Parallel.create(config.parallel, config.num_devices)
    validate(config, parallel.size)
    shape = tuple(config.data.image_shape)
    generated, train_data, eval_data = main_first(
        lambda: [
            load_dataset(one, shape, loader=config.data.loader, bad_images=config.data.bad_images)
            for one in (found, *find_sources(config))
        ]
    )
    judge = Judge.create(config, parallel, train_data, eval_data)
    size = config.eval.batch_size
    batches = (b["image"][b["mask"]] for b in eval_batches(generated, size))
    metrics, pictures = judge(batches, len(generated))
    told = judge.describe(
        len(generated), images=generated.name, images_sha256=generated.fingerprint
    )
    report = {**source, **metrics, "protocol": {"samples": told}}
    workdir = Path(workdir)
    if is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(workdir / f"eval_images_{generated.fingerprint[:12]}.json", report)
    save_figures(workdir / "figures" / "images", pictures, source)
    say(f"{generated.name}, {len(generated)} images:\n{_listed(metrics)}")
    return report


def say_report(workdir, report):
    """The numbers of a report, for the terminal."""
    say(f"step {report['step']}:\n{_listed(report)}\neverything is in {workdir}")


def _listed(report):
    numbers = {
        name: value
        for name, value in report.items()
        if name.startswith("eval/") and not _one_of_many(name)
    }
    width = max(map(len, numbers), default=0)
    return "\n".join(f"  {name:{width}}  {value:.5g}" for name, value in numbers.items())


def _one_of_many(key):
    """Whether a metric is that of one latent, level or class, numbered with two digits."""
    return re.search(r"_(latent|level)_\d\d$", key) is not None
