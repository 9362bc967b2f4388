"""Neural style transfer by optimisation (Gatys et al. 2016): the picture is what is trained.

  loss(x) = a sum_l |F_l(x) - F_l(c)|^2 + b sum_l d(S_l(x), S_l(s)) + g TV(x)

over layers l of a frozen VGG: F its activations, of the content c; S their statistics, of the style
s, compared by a distance d of `genjax.objectives.style`. The picture is the parameters of a run of
the shared trainer, its data the content picture alone; so resuming, checkpoints, averages of
iterates and the numbers are those of any run. `config.sizes` goes from coarse to fine: a run for
each, which begins with the picture and the optimizer's state of the one before.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import apply_arg, base_config, choose, require
from experiments.evaluation import saved_state
from experiments.frozen_vgg import check_layers, given, load_network, network_params
from experiments.run import Experiment, say
from experiments.style_step import PictureLoss, boxed, make_lbfgs_step
from genjax import files, plots
from genjax.data.picture import picture_path
from genjax.data.transforms import unit
from genjax.errors import UserError
from genjax.models import vgg
from genjax.objectives.style import STYLE_LOSSES
from genjax.style import pictures
from genjax.style.color import COLORS, keep_color, match_color
from genjax.style.tiles import make_tiles
from genjax.train import state as train_state
from genjax.train.parallel import in_main

STARTS = ("content", "noise", "blend")
CONTENT_LOSSES = ("squares", "self_similarity")


def add_picture_fields(config):
    """What every way of style transfer has: the two pictures, the network, the result's kind."""
    config.content = "china"  # a path, or one of `genjax.data.picture.EMBEDDED`
    config.style = "flower"
    config.weights = ""  # "": the published ones of model.variant; "random"; or a file
    config.color = "style"  # of the result: the style's, or the content's, see `COLORS`
    config.output = {"kind": "png"}  # or "jpeg", or "png16"
    config.data.pixels = "unit"


def style_config():
    """The fields of this family at their defaults."""
    config = base_config()
    config.experiment = "style_transfer"
    add_picture_fields(config)
    config.num_devices = 1  # one picture
    config.batch_size = 1
    config.eval_every_steps = 0
    config.sample_every_steps = 100
    config.checkpoint_every_steps = 200
    config.eval.batch_size = config.sample.batch_size = config.sample.num = 1
    config.more_styles = ()  # further style pictures
    config.style_shares = ()  # of all styles; () for equal
    config.style_scale = 1.0  # the style's longer side over the content's
    config.sizes = (512,)  # longer sides of the result, from coarse to fine
    config.size_steps = ()  # steps at each; () for num_train_steps
    config.size_index = 0  # which of them this run is
    config.init_from = ""  # the workdir of the size before
    config.start = {"from": "content", "noise": 0.5}  # share of noise in "blend"
    config.guides = {"content": (), "style": ()}  # masks, light where a region is
    config.tile = 0  # pixels; 0: the picture at once
    config.model = {
        "variant": "keras",
        "depth": 19,
        "pool": "max",
        "padding": "",  # "": that of the weights
        "content_layers": ("block5_conv2",),
        "style_layers": tuple(f"block{i}_conv1" for i in range(1, 6)),
        "style_layer_weights": (),  # () for equal
    }
    config.objective = {
        "content": "squares",
        "style": "gram",
        "content_weight": 1e4,
        "style_weight": 1e-2,
        "tv_weight": 0.0,
        # Each term over its value for a black picture of no features, and the variation by pixel:
        # then weights mean the same with any network, size and style.
        "relative": False,
        "clip": True,  # keep pixels in [0, 1]
    }
    return config


def complete(config):
    """The config with the size of the picture, and of the data that it is."""
    config = config.copy_and_resolve_references()
    for key in ("sizes", "size_steps", "more_styles", "style_shares"):
        require(isinstance(config[key], tuple), key, config[key], "a tuple, such as (512,)")
    sizes = config.sizes
    whole = sizes and all(type(n) is int and n >= 1 for n in sizes)
    require(whole, "sizes", sizes, "whole numbers of pixels")
    require(list(sizes) == sorted(set(sizes)), "sizes", sizes, "from small to large")
    steps = config.size_steps
    fits = not steps or len(steps) == len(sizes) and all(n >= 1 for n in steps)
    require(fits, "size_steps", steps, f"empty, or {len(sizes)} numbers of at least 1")
    index = config.size_index
    require(0 <= index < len(sizes), "size_index", index, "a place in config.sizes")
    found = pictures.size_of(config.content, "content")
    size = found.scaled_to(sizes[index])
    _check_side("content", found, size, config)
    config.data.name = f"picture:{config.content}"
    config.data.image_shape = (size.height, size.width, 3)
    if steps:
        config.num_train_steps = steps[index]
    return config


def _check_side(key, found, size, config):
    layers = (*config.model.content_layers, *config.model.style_layers)
    require(len(layers) > 0, "model.style_layers", (), "at least one layer, or content_layers")
    choose(vgg.BLOCKS, config.model.depth, "model.depth")
    check_layers(layers, config.model.depth)
    pictures.check_size(found, key)
    least = 2 * vgg.reach(layers, config.model.depth)[0]
    if min(size.height, size.width) < least:
        raise UserError(
            f"config.{key}: a picture of {found.width}x{found.height} pixels is {size.width}x"
            f"{size.height} with a longer side of {max(size.height, size.width)}, but the layers "
            f"asked for need {least} pixels a side; choose another picture, or larger config.sizes"
        )


def build(config, image_shape, class_names, axis_name):
    """The optimisation of one picture at one size, as the shared trainer takes it."""
    del class_names, axis_name  # there is one picture, on one device
    targets = _check(config)
    model, clip = config.model, config.objective.clip
    layers = tuple(dict.fromkeys((*model.content_layers, *model.style_layers)))
    network, params_vgg, told = load_network(config, layers)
    before = _before(config, image_shape) if config.init_from else None
    styles = targets.styles(image_shape)
    tiles = None
    if config.tile:
        reach = vgg.reach(layers, network.depth)
        tiles = make_tiles(*image_shape[:2], config.tile, *reach)
    shares = model.style_layer_weights or (1.0,) * len(model.style_layers)
    loss_of = PictureLoss(
        network,
        config.objective,
        model.content_layers,
        model.style_layers,
        np.asarray(shares, np.float32) / np.sum(shares),
        targets.style_shares,
        targets.masks("content", image_shape[:2]),
        tiles,
    )

    def init(key, images):
        content = unit(images)
        keys = jax.random.split(key)
        params = network_params(network, params_vgg, keys[0], image_shape)
        model_state = {"vgg": params, **loss_of.targets(params, content, *styles)}
        noise = jax.random.uniform(keys[1], content.shape)
        share = {"content": 0.0, "noise": 1.0, "blend": config.start.noise}[config.start["from"]]
        start = (1 - share) * content + share * noise
        return given(before[0]) if before else {"image": start}, model_state

    def init_opt(tx, params):
        # L-BFGS's picture of the curvature is one of the old size.
        carried = before and config.optim.name != "lbfgs"
        return given(before[1]) if carried else boxed(tx, clip).init(params)

    def loss_fn(params, model_state, batch, rngs, train):
        loss, terms = loss_of(params["image"], model_state["vgg"], model_state, batch["image"])
        return loss, (terms, model_state)

    def eval_fn(params, model_state, batch, rngs):
        loss, (terms, _) = loss_fn(params, model_state, batch, rngs, False)
        named = {"loss": loss, **{_protocol(name, config): x for name, x in terms.items()}}
        return {name: x[None] for name, x in named.items()}

    def make_train_step(tx, ema, axis_name):
        if config.optim.name == "lbfgs":
            return make_lbfgs_step(loss_fn, tx, ema)
        return train_state.make_train_step(loss_fn, boxed(tx, clip), ema, axis_name=axis_name)

    def result(params):
        """float [H, W, 3] in [0, 1], as it is saved."""
        image = np.clip(np.asarray(params["image"][0]), 0, 1)
        if config.color == "luminance":
            image = keep_color(image, targets.content(image_shape))
        return image

    def figures(params, model_state, batch):
        return {"image": plots.to_uint8(result(params))}

    def export(params, model_state, folder):
        size = pictures.Size(*image_shape[:2])
        path = pictures.save_picture(
            Path(folder) / "samples" / result_name(config),
            result(params),
            pictures.read_alpha(config.content, "content", size),
            config.output.kind,
            {"content": config.content, "style": config.style, "weights": told},
        )
        say(f"the picture is {path}")

    return Experiment(
        init=init,
        init_examples=1,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        figures=figures,
        export=export,
        make_train_step=make_train_step,
        init_opt=init_opt,
        frozen={"vgg": told},
        line_search=True,
    )


def result_name(config):
    """What a result is called, without suffix."""
    return "_".join(picture_path(name).stem for name in (config.content, config.style))


def _protocol(name, config):
    if name == "total_variation":
        return name
    kind = config.objective[name]
    return f"{name}_{kind}_vgg{config.model.depth}"


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the picture is to be like, read from files."""

    config: object
    style_shares: tuple[float, ...]

    def content(self, image_shape):
        size = pictures.Size(*image_shape[:2])
        return pictures.read_rgb(self.config.content, "content", size)

    def styles(self, image_shape):
        """([RGB [H, W, 3]], [masks [R, H, W, 1] or None])."""
        config = self.config
        long_side = max(1, round(config.style_scale * max(image_shape[:2])))
        images, masks = [], []
        for name in (config.style, *config.more_styles):
            found = pictures.size_of(name, "style")
            size = found.scaled_to(long_side)
            _check_side("style", found, size, config)
            image = pictures.read_rgb(name, "style", size)
            if config.color == "histogram":
                image = match_color(image, self.content(image_shape))
            images.append(image)
            masks.append(self.masks("style", (size.height, size.width)))
        return images, masks

    def masks(self, kind, shape):
        """float32 [R, H, W, 1], or None where none are given."""
        names = self.config.guides[kind]
        size = pictures.Size(*shape)
        read = [pictures.read_grey(n, f"guides.{kind}", size)[..., None] for n in names]
        for name, mask in zip(names, read):
            require(mask.max() > 0, f"guides.{kind}", name, "light somewhere")
        return jnp.asarray(np.stack(read)) if read else None


def _check(config):
    """Refuses what cannot be; returns the `Targets`."""
    objective, model = config.objective, config.model
    style = choose(STYLE_LOSSES, objective.style, "objective.style")
    choose(CONTENT_LOSSES, objective.content, "objective.content")
    choose(COLORS, config.color, "color")
    choose(pictures.KINDS, config.output.kind, "output.kind")
    choose(STARTS, config.start["from"], "start.from")
    share = config.start.noise
    require(0 <= share <= 1, "start.noise", share, "in [0, 1]")
    for key in ("content_weight", "style_weight", "tv_weight"):
        require(0 <= objective[key] < np.inf, f"objective.{key}", objective[key], "at least 0")
    scale = config.style_scale
    require(0 < scale < np.inf, "style_scale", scale, "above 0 and finite")
    require(len(model.style_layers) > 0, "model.style_layers", (), "at least one layer")
    for key, known, least in (
        ("model.style_layer_weights", model.style_layer_weights, len(model.style_layers)),
        ("style_shares", config.style_shares, 1 + len(config.more_styles)),
    ):
        fits = not known or len(known) == least and min(known) >= 0 and sum(known) > 0
        require(fits, key, known, f"empty, or {least} numbers of at least 0")
    guides = config.guides
    fits = len(guides.content) == len(guides.style)
    require(fits, "guides.style", guides.style, "as many masks as guides.content")
    for key, asked in (("guides.content", guides.content), ("more_styles", config.more_styles)):
        able = style.additive or not asked
        require(able, key, asked, f"empty with config.objective.style={objective.style}")
    require(config.tile >= 0, "tile", config.tile, "at least 0")
    local = style.additive and objective.content == "squares"
    what = "0 with losses that compare positions with each other"
    require(local or not config.tile, "tile", config.tile, what)
    require(config.batch_size == 1, "batch_size", config.batch_size, "1: there is one picture")
    searching = config.optim.name == "lbfgs"
    require(not (searching and objective.clip), "objective.clip", True, "False with lbfgs")
    parts = config.optim.accumulate_steps
    require(parts == 1, "optim.accumulate_steps", parts, "1: there is one picture")
    shares = config.style_shares or (1.0,) * (1 + len(config.more_styles))
    return Targets(config, tuple(s / sum(shares) for s in shares))


def _before(config, image_shape):
    """(the picture, the optimizer's state) of the size before, as NumPy arrays at this size.

    What has the picture's shape is resized, all else is as it was.
    """
    before = complete(_of_index(config, config.size_index - 1, ""))
    allow = ("eval.", "sample.", "init_from")
    _, state = saved_state(before, config.init_from, "latest", allow)

    def resized(x):
        x = np.asarray(x)
        return _resized(x, *image_shape[:2]) if x.shape[-3:] == before.data.image_shape else x

    return jax.tree.map(resized, (state.params, state.opt_state))


def _resized(x, height, width):
    """Bilinear, [..., H, W, C]: what is positive, as squares of gradients are, stays so."""

    def along(x, axis, length):
        places = (np.arange(length) + 0.5) * x.shape[axis] / length - 0.5
        places = np.clip(places, 0, x.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        weight = (places - low).astype(x.dtype)
        weight = np.expand_dims(weight, [a for a in range(x.ndim) if a != axis % x.ndim])
        return np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight

    return along(along(x, -3, height), -2, width)


def _of_index(config, index, workdir):
    """The config of the run of one size."""
    one = config.copy_and_resolve_references()
    one.size_index = index
    one.init_from = str(_folder(config, index - 1, workdir)) if index and workdir else ""
    return one


def _folder(config, index, workdir):
    return Path(workdir) / f"size_{config.sizes[index]:05d}"


def train(config, workdir, source, train_one):
    """A run for each size; the result of the last is the result."""
    if len(config.sizes) == 1:
        return train_one(complete(config), workdir, source)
    for index in range(len(config.sizes)):
        one = complete(_of_index(config, index, workdir))
        folder = _folder(config, index, workdir)
        say(f"size {index + 1} of {len(config.sizes)}: {one.data.image_shape[:2]}")
        report = train_one(one, folder, source)
    in_main(lambda: _finish(folder, workdir, report))
    return report


def _finish(folder, workdir, report):
    for path in sorted((folder / "samples").iterdir()):
        (workdir / "samples").mkdir(exist_ok=True)
        with files.whole_file(workdir / "samples" / path.name) as partial:
            shutil.copy(path, partial)
        say(f"the picture is {workdir / 'samples' / path.name}")
    files.write_json(workdir / "report.json", json.loads(json.dumps(report)))


def apply_style_arg(config, arg, smoke=None):
    """`apply_arg` with what makes these runs small: random weights, 48 pixels, shallow layers."""
    tiny = {
        "data.name": "",
        "batch_size": 1,
        "eval.batch_size": 1,
        "sample.batch_size": 1,
        "sample.num": 1,
        "eval_every_steps": 0,
        "weights": "random",
        "sizes": (48,) if len(config.sizes) == 1 else (40, 48),
        "size_steps": (),
        "model.content_layers": ("block2_conv1",),
        "model.style_layers": ("block1_conv1", "block2_conv1"),
        "model.style_layer_weights": (),
    }
    return apply_arg(config, arg, {**tiny, **(smoke or {})})
