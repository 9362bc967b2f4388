"""What a trained diffusion model draws beside new images: `--mode=sample --config.sample.task=...`.

  progress     new images, and what the denoiser says of them on the way
  edit         pictures under noise of some strength, and sampled on from there (SDEdit)
  inpaint      pictures of which a mask's white part is painted anew
  invert       pictures as noise, by the ODE, and what that noise gives back
  interpolate  images between images of the seed, or between pictures, along the sphere of noises

Pictures are those of config.sample.input, or the first ones of the evaluation split.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import choose, require
from experiments.denoisers import to_unit
from experiments.evaluation import (
    provenance_of,
    sampled_labels,
    sampler_batch,
    save_images,
)
from genjax import plots, rng
from genjax.data.images import read_image
from genjax.data.picture import EMBEDDED
from genjax.data.sources import find_source
from genjax.data.transforms import symmetric
from genjax.diffusion import editing, guidance, samplers
from genjax.train.parallel import main_first

FIELDS = {
    "task": "draw",
    "input": "",  # a picture, a folder, an .npz; "": the evaluation split
    "strength": 0.6,  # edit: the share of the steps that is walked, from noise on
    "mask": "lower",  # inpaint: what is painted anew, or a picture, white there
    "walk": (0, 1),  # interpolate: from which image of the seed, or of the input, to which
}
STRIP = 10  # images of a progressive strip
SHOWN = 64  # rows of pictures in a panel
ODE_SAMPLERS = ("ddim", "euler", "heun")  # that take any times, rising ones, too

# config.sample.mask -> (rows, columns, each in (0, 1)) -> whether that is painted anew.
MASKS = {
    "lower": lambda y, x: y > 0.5,
    "upper": lambda y, x: y < 0.5,
    "left": lambda y, x: x < 0.5,
    "right": lambda y, x: x > 0.5,
    "center": lambda y, x: (abs(y - 0.5) < 0.25) & (abs(x - 0.5) < 0.25),
}


def check(config):
    """Refuses a task that cannot be done."""
    options = config.sample
    choose(("draw", *TASKS), options.task, "sample.task")
    strength, walk = options.strength, tuple(options.walk)
    require(0 < strength <= 1, "sample.strength", strength, "above 0, and at most 1")
    whole = len(walk) > 1 and all(type(i) is int and i >= 0 for i in walk)
    require(whole, "sample.walk", walk, "at least two numbers of images, from 0")
    if options.task == "invert" or (options.task == "interpolate" and options.input):
        able = options.sampler in ODE_SAMPLERS and options.eta == 0 and options.churn == 0
        what = f"one of {', '.join(ODE_SAMPLERS)}, without eta and churn, to invert"
        require(able, "sample.sampler", options.sampler, what)


def perform(run, state, step, drawing, workdir, source):
    """Does config.sample.task and saves what came of it.

    Args:
      run, state, step: as `restored` returns them.
      drawing: the run's `Drawing`.

    Returns:
      {"images": uint8 [N, H, W, C], ...}, what is in the .npz file.
    """
    options = run.config.sample
    arrays, picture = TASKS[options.task](_Mapper(run, state, drawing))
    told = {**provenance_of(run, source), "step": step, "seed": options.seed, "task": options.task}
    name = f"step_{step:08d}_seed_{options.seed}_{options.task}"
    save_images(Path(workdir) / "samples" / name, arrays, told, picture)
    return arrays


class _Mapper:
    """Rows of arrays through a function of them, in the sampler's batches, over the devices."""

    def __init__(self, run, state, drawing):
        self.run, self.drawing, self.options = run, drawing, run.config.sample
        self._state = state

    def __call__(self, fn, index, labels, **rows):
        """fn(denoise, keys [B], rows [B, ...]) -> {name: [B, ...]}, for all rows.

        `index` [N] are the numbers of the seed's images, whose keys these are.
        """

        def step(tree, batch):
            key = rng.stream(jax.random.key(self.options.seed), "sample")
            keys = rng.per_example(key, batch.pop("index"))
            denoise = self.drawing.denoiser(*tree, batch.pop("label"))
            return fn(denoise, keys, batch)

        mapped, tree = self.run.parallel.compile_map(step), self.run.eval_tree(self._state)
        rows = {"index": np.asarray(index, np.int32), "label": np.asarray(labels, np.int32), **rows}
        size, found = sampler_batch(self.run), []
        for start in range(0, len(index), size):
            # Always whole batches, as new images are drawn.
            which = np.arange(start, min(start + size, len(index)))
            chosen = np.resize(which, size)[self.run.parallel.rows(size)]
            made = mapped(tree, {name: value[chosen] for name, value in rows.items()})
            found.append({name: value[: len(which)] for name, value in made.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def pictures(self, index):
        """(uint8 [N, H, W, C], labels [N]) of the pictures `index` of the input, in turn."""
        images, labels, count = _read(self.run, index)
        return images, self.labels(index, labels), count

    def labels(self, index, known=None):
        """The classes of the images `index` of the seed, or those `known` of pictures."""
        num_classes = self.drawing.num_classes
        if num_classes == 0 or self.options.label >= 0 or known is None:
            return sampled_labels(self.run.config, index, num_classes)
        if (known >= 0).all():
            return known
        # Pictures of no known class.
        if self.run.config.objective.label_dropout == 0:
            what = "a class: the pictures have none, and the network knows none without"
            require(False, "sample.label", self.options.label, what)
        return np.full(len(index), num_classes, np.int32)

    def noise(self, keys):
        """Where the sampler begins with the seed's images."""
        first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
        return self.drawing.process.prior_std * rng.normal(first, self.drawing.image_shape)

    def sampled(self, denoise, keys, x):
        """From `x` [B, ...] at the first time to (images, x0_hat at every point)."""
        drawing = self.drawing
        noise_at = samplers.keyed_noise(keys, drawing.image_shape)
        return samplers.sample(
            drawing.sampler, denoise, drawing.process, drawing.times(), x, noise_at
        )


def _read(run, index):
    """(uint8 images, labels or -1, how many there are) of the pictures `index`, in turn."""
    name, shape = run.config.sample.input, tuple(run.config.data.image_shape)
    if not name:
        data, index = run.eval_data, np.asarray(index) % len(run.eval_data)
        batch = data.batch(index, index)
        return batch["image"], batch["label"], len(data)
    path = Path(name).expanduser()
    if ":" not in name and name not in EMBEDDED:
        require(path.exists(), "sample.input", name, "a picture, a folder of them, or an .npz file")
        kind = "folder" if path.is_dir() else "npz" if path.suffix == ".npz" else "picture"
        name = f"{kind}:{path}"
    source = main_first(lambda: find_source(f"picture:{name}" if name in EMBEDDED else name, "all"))
    images, labels = source.read(np.asarray(index) % len(source), shape)
    classes = len(source.class_names) == len(run.train_data.class_names) > 0
    return images, labels if classes else np.full(len(index), -1, np.int32), len(source)


def _mask(name, shape):
    """bool [H, W, 1], what is painted anew."""
    height, width, _ = shape
    if name in MASKS:
        y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        return MASKS[name](y[:, None], x[None, :])[..., None] & np.ones((height, width, 1), bool)
    path = Path(name).expanduser()
    if not path.is_file():
        choose(MASKS, name, "sample.mask")
    mask = read_image(path, (height, width, 1)) > 127
    require(mask.any(), "sample.mask", name, "white where there is to be painted; it is black")
    return mask


def _beside(*columns):
    """A grid of rows: images of every column [N, H, W, C] next to each other, two rows abreast."""
    rows = np.stack(columns, axis=1)[:SHOWN]
    return plots.grid(rows.reshape(-1, *rows.shape[2:]), 2 * len(columns))


def _progress(mapper):
    index = np.arange(mapper.options.num)

    def fn(denoise, keys, rows):
        images, x0s = mapper.sampled(denoise, keys, mapper.noise(keys))
        which = np.linspace(0, x0s.shape[0] - 1, STRIP).round().astype(int)
        return {"image": to_unit(images), "strip": to_unit(x0s[which].swapaxes(0, 1))}

    made = mapper(fn, index, mapper.labels(index))
    arrays = {"images": plots.to_uint8(made["image"]), "strips": plots.to_uint8(made["strip"])}
    shown = arrays["strips"][:SHOWN]
    return arrays, plots.grid(shown.reshape(-1, *shown.shape[2:]), STRIP)


def _edit(mapper):
    index, drawing = np.arange(mapper.options.num), mapper.drawing
    images, labels, _ = mapper.pictures(index)

    def fn(denoise, keys, rows):
        times = drawing.times()
        walked = max(1, round(mapper.options.strength * times.shape[0]))
        args = drawing.sampler, denoise, drawing.process, times[-walked:]
        return {"image": to_unit(editing.image_to_image(*args, symmetric(rows["image"]), keys))}

    made = plots.to_uint8(mapper(fn, index, labels, image=images)["image"])
    return {"images": made, "inputs": images}, _beside(images, made)


def _inpaint(mapper):
    index = np.arange(mapper.options.num)
    images, labels, _ = mapper.pictures(index)
    anew = _mask(mapper.options.mask, images.shape[1:])

    def fn(denoise, keys, rows):
        known = symmetric(rows["image"])
        mask = jnp.broadcast_to(~anew, known.shape).astype(jnp.float32)
        denoise = guidance.inpainting(denoise, known, mask)
        return {"image": to_unit(mapper.sampled(denoise, keys, mapper.noise(keys))[0])}

    made = plots.to_uint8(mapper(fn, index, labels, image=images)["image"])
    masked = np.where(anew, 127, images).astype(np.uint8)
    arrays = {"images": made, "inputs": images, "mask": anew}
    return arrays, _beside(images, masked, made)


def _inverted(mapper, index):
    """{"noise": float32, "image": what it gives back} of pictures; and these, and their labels."""
    drawing = mapper.drawing
    images, labels, _ = mapper.pictures(index)

    def fn(denoise, keys, rows):
        x, name = symmetric(rows["image"]), mapper.options.sampler
        noise = editing.invert(denoise, drawing.process, drawing.times(), x, name)
        return {"noise": noise, "image": to_unit(mapper.sampled(denoise, keys, noise)[0])}

    return mapper(fn, index, labels, image=images), images, labels


def _invert(mapper):
    # The same picture twice has the same noise.
    count = _read(mapper.run, [0])[2]
    made, images, _ = _inverted(mapper, np.arange(min(mapper.options.num, count)))
    back = plots.to_uint8(made["image"])
    std = float(mapper.drawing.process.prior_std)
    arrays = {"images": back, "inputs": images, "noise": made["noise"]}
    return arrays, _beside(images, plots.to_uint8(made["noise"] / std / 6 + 0.5), back)


def _interpolate(mapper):
    walk = np.asarray(mapper.options.walk)
    if mapper.options.input:
        made, _, labels = _inverted(mapper, walk)
    else:
        labels = mapper.labels(walk)
        made = mapper(lambda _, keys, rows: {"noise": mapper.noise(keys)}, walk, labels)
    place = np.linspace(0, len(walk) - 1, mapper.options.num)
    before = np.minimum(place.astype(int), len(walk) - 2)
    ends = {"a": made["noise"][before], "b": made["noise"][before + 1]}
    ends["u"] = (place - before).astype(np.float32)

    def fn(denoise, keys, rows):
        x = jax.vmap(editing.slerp)(rows["a"], rows["b"], rows["u"])
        return {"image": to_unit(mapper.sampled(denoise, keys, x)[0])}

    # The noise of the way, if there is any, is that of the first image all along; the class is that
    # of the nearer end.
    near = np.asarray(labels)[place.round().astype(int)]
    images = mapper(fn, np.full(len(place), walk[0]), near, **ends)["image"]
    images = plots.to_uint8(images)
    return {"images": images}, plots.grid(images[: SHOWN * STRIP], min(len(images), STRIP))


# config.sample.task -> a `_Mapper` -> (arrays to save, "images" among them; the picture of them).
TASKS = {
    "progress": _progress,
    "edit": _edit,
    "inpaint": _inpaint,
    "invert": _invert,
    "interpolate": _interpolate,
}
