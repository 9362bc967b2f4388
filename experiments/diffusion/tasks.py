"""What a trained model does besides new images: `--mode=sample --config.sample.task=...`.

  progress     new images, and x0_hat at steps of the sampler
  edit         images with noise of some strength added, and sampled on from there (SDEdit)
  inpaint      images whose pixels are generated where a mask is white
  invert       the noise of images, by the ODE, and the images that this noise gives
  interpolate  images between images of the seed, or input images, along the sphere of noises

Input images are those of config.sample.input, or the first ones of the evaluation split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from experiments.diffusion.denoisers import to_unit
from genjax import plots, rng
from genjax.data.images import BadImage, decoded, fit_image
from genjax.data.picture import EMBEDDED
from genjax.data.sources import find_source
from genjax.data.transforms import symmetric
from genjax.diffusion import editing, guidance, samplers
from genjax.diffusion.process import Denoiser
from genjax.errors import UserError
from genjax.files import user_path
from genjax.runner.datasets import describe
from genjax.runner.evaluator import sampled_labels, sampler_batch_size
from genjax.runner.fields import choose, field, one_of, require
from genjax.runner.figures import save_images
from genjax.runner.provenance import provenance_of
from genjax.runner.run import Run
from genjax.train.parallel import main_first
from genjax.train.state import TrainState
from genjax.typing import Array, Bool, Float, Key, Shape, UInt8

STRIP = 10  # images of a progressive strip
SHOWN = 64  # rows of images in a picture
ODE_SAMPLERS = ("ddim", "euler", "heun")  # those that accept rising times, too

# config.sample.mask -> (rows, columns, each in (0, 1)) -> whether a pixel is to be generated.
MASKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "lower": lambda y, x: y > 0.5,
    "upper": lambda y, x: y < 0.5,
    "left": lambda y, x: x < 0.5,
    "right": lambda y, x: x > 0.5,
    "center": lambda y, x: (abs(y - 0.5) < 0.25) & (abs(x - 0.5) < 0.25),
}

Arrays = dict[str, np.ndarray]  # [N, ...] by name
Result = tuple[Arrays, UInt8[np.ndarray, "h w c"]]  # arrays, "images" among them; their picture
# (denoiser, keys [B], {name: rows [B, ...]}) -> {name: results [B, ...]}
RowFunction = Callable[[Denoiser, Key[Array, " b"], dict[str, Array]], dict[str, Array]]


def check(options: ConfigDict, image_shape: Shape) -> None:
    """Raises a UserError for a task of config.sample that cannot be done."""
    walk = tuple(options.walk)
    require(len(walk) > 1, "sample.walk", walk, "at least two numbers of images")
    if options.task == "invert" or (options.task == "interpolate" and options.input):
        invertible = options.sampler in ODE_SAMPLERS and options.eta == 0 and options.churn == 0
        what = f"one of {', '.join(ODE_SAMPLERS)}, without eta and churn, to invert"
        require(invertible, "sample.sampler", options.sampler, what)
    if options.task == "inpaint":
        _read_mask(options.mask, image_shape)


def perform(
    run: Run, state: TrainState | None, step: int, workdir: Path, source: dict[str, Any]
) -> Arrays:
    """Performs config.sample.task and saves the results.

    Args:
      run, state, step: as `restored_run` returns them.
      workdir: results go to its folder `samples`.
      source: provenance of the command.

    Returns:
      {"images": uint8 [N, H, W, C], ...}, the contents of the .npz file.
    """
    options = run.config.sample
    arrays, picture = TASKS[options.task](Mapper(run, state))
    provenance = provenance_of(run, source)
    provenance |= {"step": step, "seed": options.seed, "task": options.task}
    name = f"step_{step:08d}_seed_{options.seed}_{options.task}"
    save_images(Path(workdir) / "samples" / name, arrays, provenance, picture)
    return arrays


class Mapper:
    """Maps functions over rows of arrays, in the sampler's batches, spread over the devices.

    Attributes:
      run: the run, of the family `Diffusion`.
      family: its family.
      options: config.sample.
    """

    def __init__(self, run: Run, state: TrainState | None) -> None:
        self.run, self.options = run, run.config.sample
        self.family = run.family
        self._state = state

    def __call__(
        self, fn: RowFunction, index: np.ndarray, labels: np.ndarray, **rows: np.ndarray
    ) -> Arrays:
        """Calls `fn` for all rows.

        Args:
          fn: the function.
          index: [N], numbers of images of the seed, which pick the keys.
          labels: [N], classes for the denoiser.
          **rows: [N, ...], what `fn` gets.
        """

        def step(tree, batch):
            key = rng.stream(jax.random.key(self.options.seed), "sample")
            keys = rng.per_example(key, batch.pop("index"))
            denoise = self.family.denoiser(*tree, batch.pop("label"))
            return fn(denoise, keys, batch)

        mapped, tree = self.run.parallel.compile_map(step), self.run.eval_tree(self._state)
        rows = {"index": np.asarray(index, np.int32), "label": np.asarray(labels, np.int32), **rows}
        size, parts = sampler_batch_size(self.run), []
        for start in range(0, len(index), size):
            # Always full batches, as for new images.
            numbers = np.arange(start, min(start + size, len(index)))
            chosen = np.resize(numbers, size)[self.run.parallel.rows(size)]
            results = mapped(tree, {name: value[chosen] for name, value in rows.items()})
            parts.append({name: value[: len(numbers)] for name, value in results.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def inputs(self, index: np.ndarray) -> tuple[UInt8[np.ndarray, "n h w c"], np.ndarray]:
        """Returns the input images of these numbers, and their classes [N]."""
        images, labels, _ = _read_inputs(self.run, index)
        return images, self.labels(index, labels)

    def labels(self, index: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Returns the classes of images of the seed, [N].

        Args:
          index: numbers of the images.
          known: classes of input images, -1 where they have none; used instead unless
            config.sample.label names a class.

        Raises:
          UserError: input images have no class, and the network was not trained without one.
        """
        num_classes = self.family.num_classes
        if num_classes == 0 or self.options.label >= 0 or known is None:
            return sampled_labels(self.run.config, index, num_classes)
        if (known >= 0).all():
            return known
        if self.family.label_dropout == 0:
            what = "a class: the images have none, and the network was not trained without classes"
            require(False, "sample.label", self.options.label, what)
        return np.full(len(index), num_classes, np.int32)

    def noise(self, keys: Key[Array, " b"]) -> Float[Array, "b h w c"]:
        """Returns the noise from which the sampler makes the images of the seed."""
        first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
        return self.family.process.prior_std * rng.normal(first, self.family.image_shape)

    def sampled(
        self, denoise: Denoiser, keys: Key[Array, " b"], x: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "n b h w c"]]:
        """Samples from x at the first time; returns images, and x0_hat at every time."""
        family = self.family
        noise_at = samplers.keyed_noise(keys, family.image_shape)
        return samplers.sample(family.sampler, denoise, family.process, family.times(), x, noise_at)


# ---- Inputs ----


def _read_inputs(run: Run, index: Any) -> tuple[UInt8[np.ndarray, "n h w c"], np.ndarray, int]:
    """Reads input images.

    Args:
      run: the run.
      index: numbers of images; they start again from 0 where there are no more images.

    Returns:
      (images, labels [N] or -1, number of input images there are).
    """
    name, shape = run.config.sample.input, tuple(run.config.data.image_shape)
    if not name:
        data, index = run.eval_data, np.asarray(index) % len(run.eval_data)
        batch = data.batch(index, index)
        return batch["image"], batch["label"], len(data)
    path = user_path(name.partition(":")[2] if ":" in name else name, "config.sample.input")
    if ":" not in name and name not in EMBEDDED:
        require(path.exists(), "sample.input", name, "a picture, a folder of them, or an .npz file")
        kind = "folder" if path.is_dir() else "npz" if path.suffix == ".npz" else "picture"
        name = f"{kind}:{path}"
    source = main_first(lambda: find_source(f"picture:{name}" if name in EMBEDDED else name, "all"))
    describe(source)
    images, labels = source.read(np.asarray(index) % len(source), shape)
    classes = len(source.class_names) == len(run.train_data.class_names) > 0
    return images, labels if classes else np.full(len(index), -1, np.int32), len(source)


def _read_mask(name: str, shape: Shape) -> Bool[np.ndarray, "h w 1"]:
    """Returns the mask of config.sample.mask: True where pixels are to be generated."""
    height, width, _ = shape
    if name in MASKS:
        y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        return MASKS[name](y[:, None], x[None, :])[..., None] & np.ones((height, width, 1), bool)
    path = user_path(name, "config.sample.mask")
    if not path.is_file():
        choose(MASKS, name, "sample.mask")
    lightness = _read_lightness(path)
    generated = fit_image(lightness, (height, width, 1)) > 127
    for kept, color, other in ((generated, "white", "black"), (~generated, "black", "white")):
        if kept.any():
            continue
        why = f"it is {other}"
        if ((lightness > 127) == (color == "white")).any():
            why = f"what is {color} lies outside of the middle that is cropped to {width}x{height}"
        what = f"white where pixels are to be generated, black elsewhere; {why}"
        require(False, "sample.mask", name, what)
    return generated


def _read_lightness(path: Path) -> UInt8[np.ndarray, "h w 1"]:
    """Reads the lightness of a mask; what is transparent is black, as not to be generated."""

    def on_black(image):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("RGB").convert("L"))[..., None]

    try:
        return decoded(path, on_black)
    except BadImage as error:
        raise UserError(f"config.sample.mask: cannot read {error.path}: {error.reason}") from error


# ---- Tasks ----


def _side_by_side(*columns: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "H W c"]:
    """Returns a grid in which image i of every column are neighbours, two such groups in a row."""
    rows = np.stack(columns, axis=1)[:SHOWN]
    return plots.grid(rows.reshape(-1, *rows.shape[2:]), 2 * len(columns))


def _progress(mapper: Mapper) -> Result:
    index = np.arange(mapper.options.num)

    def fn(denoise, keys, rows):
        images, x0_hats = mapper.sampled(denoise, keys, mapper.noise(keys))
        steps = np.linspace(0, x0_hats.shape[0] - 1, STRIP).round().astype(int)
        return {"image": to_unit(images), "strip": to_unit(x0_hats[steps].swapaxes(0, 1))}

    results = mapper(fn, index, mapper.labels(index))
    strips = plots.to_uint8(results["strip"])
    shown = strips[:SHOWN]
    picture = plots.grid(shown.reshape(-1, *shown.shape[2:]), STRIP)
    return {"images": plots.to_uint8(results["image"]), "strips": strips}, picture


def _edit(mapper: Mapper) -> Result:
    index, family = np.arange(mapper.options.num), mapper.family
    inputs, labels = mapper.inputs(index)

    def fn(denoise, keys, rows):
        times = family.times()
        steps = max(1, round(mapper.options.strength * times.shape[0]))
        args = family.sampler, denoise, family.process, times[-steps:]
        return {"image": to_unit(editing.image_to_image(*args, symmetric(rows["image"]), keys))}

    images = plots.to_uint8(mapper(fn, index, labels, image=inputs)["image"])
    return {"images": images, "inputs": inputs}, _side_by_side(inputs, images)


def _inpaint(mapper: Mapper) -> Result:
    index = np.arange(mapper.options.num)
    inputs, labels = mapper.inputs(index)
    generated = _read_mask(mapper.options.mask, inputs.shape[1:])

    def fn(denoise, keys, rows):
        known = symmetric(rows["image"])
        mask = jnp.broadcast_to(~generated, known.shape).astype(jnp.float32)
        denoise = guidance.inpainting(denoise, known, mask)
        return {"image": to_unit(mapper.sampled(denoise, keys, mapper.noise(keys))[0])}

    images = plots.to_uint8(mapper(fn, index, labels, image=inputs)["image"])
    masked = np.where(generated, 127, inputs).astype(np.uint8)
    arrays = {"images": images, "inputs": inputs, "mask": generated}
    return arrays, _side_by_side(inputs, masked, images)


def _inverted(mapper: Mapper, index: np.ndarray) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Inverts input images.

    Returns:
      ({"noise": float32, "image": what that noise gives, in [0, 1]}, the inputs, their labels).
    """
    family = mapper.family
    inputs, labels = mapper.inputs(index)

    def fn(denoise, keys, rows):
        x, name = symmetric(rows["image"]), mapper.options.sampler
        noise = editing.invert(denoise, family.process, family.times(), x, name)
        return {"noise": noise, "image": to_unit(mapper.sampled(denoise, keys, noise)[0])}

    return mapper(fn, index, labels, image=inputs), inputs, labels


def _invert(mapper: Mapper) -> Result:
    # No more than there are: the same image twice has the same noise.
    count = _read_inputs(mapper.run, [0])[2]
    results, inputs, _ = _inverted(mapper, np.arange(min(mapper.options.num, count)))
    noise, images = results["noise"], plots.to_uint8(results["image"])
    std = float(mapper.family.process.prior_std)
    arrays = {"images": images, "inputs": inputs, "noise": noise}
    return arrays, _side_by_side(inputs, plots.to_uint8(noise / std / 6 + 0.5), images)


def _interpolate(mapper: Mapper) -> Result:
    walk = np.asarray(mapper.options.walk)
    if mapper.options.input:
        results, _, labels = _inverted(mapper, walk)
    else:
        labels = mapper.labels(walk)
        results = mapper(lambda _, keys, rows: {"noise": mapper.noise(keys)}, walk, labels)
    position = np.linspace(0, len(walk) - 1, mapper.options.num)
    start = np.minimum(position.astype(int), len(walk) - 2)
    ends = {"a": results["noise"][start], "b": results["noise"][start + 1]}
    ends["u"] = (position - start).astype(np.float32)

    def fn(denoise, keys, rows):
        x = jax.vmap(editing.slerp)(rows["a"], rows["b"], rows["u"])
        return {"image": to_unit(mapper.sampled(denoise, keys, x)[0])}

    # All images share the noise that a stochastic sampler adds, that of the first one; the class is
    # that of the nearer end.
    nearest = np.asarray(labels)[position.round().astype(int)]
    images = mapper(fn, np.full(len(position), walk[0]), nearest, **ends)["image"]
    images = plots.to_uint8(images)
    return {"images": images}, plots.grid(images[: SHOWN * STRIP], min(len(images), STRIP))


# config.sample.task -> Mapper -> results.
TASKS: dict[str, Callable[[Mapper], Result]] = {
    "progress": _progress,
    "edit": _edit,
    "inpaint": _inpaint,
    "invert": _invert,
    "interpolate": _interpolate,
}

FIELDS = {
    "task": field("draw", "draw: new images", one_of=("draw", *TASKS)),
    "input": field(
        "",
        "a picture, a folder, an .npz file; empty: the evaluation split",
        only_with=one_of("sample.task", "edit", "inpaint", "invert", "interpolate"),
    ),
    "strength": field(
        0.6,
        "edit: the share of the sampler's steps",
        above=0,
        at_most=1,
        only_with=one_of("sample.task", "edit"),
    ),
    "mask": field(
        "lower",
        f"inpaint: {', '.join(MASKS)}, or a picture, white to generate",
        only_with=one_of("sample.task", "inpaint"),
    ),
    "walk": field(
        (0, 1),
        "interpolate: numbers of the images to go through",
        at_least=0,
        only_with=one_of("sample.task", "interpolate"),
    ),
}
