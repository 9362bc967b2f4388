"""Neural style transfer by optimisation (Gatys et al. 2016): the picture is what is trained.

  loss(x) = a sum_l |F_l(x) - F_l(c)|^2 + b sum_l d(S_l(x), S_l(s)) + g TV(x)

over layers l of a frozen VGG: F its activations, of the content c; S their statistics, of the style
s, compared by a distance d of `genjax.objectives.style`. The picture is the parameters of a run of
the shared trainer, its data the content picture alone; so resuming, checkpoints, averages of
iterates and the numbers are those of any run. `config.sizes` goes from coarse to fine: a run for
each, which begins with the picture and the optimizer's state of the one before.
"""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import apply_arg, base_config, choose, require
from experiments.evaluation import restored
from experiments.run import Experiment, say
from genjax import files, plots
from genjax.data.picture import picture_path
from genjax.data.transforms import unit
from genjax.errors import UserError
from genjax.models import vgg
from genjax.models.vgg import VGG, average_pool
from genjax.objectives.style import (
    STYLE_LOSSES,
    self_similarity_distance,
    some_positions,
    total_variation,
)
from genjax.style import pictures
from genjax.style.color import COLORS, keep_color, match_color
from genjax.style.tiles import make_tiles, ownership, sum_over_tiles
from genjax.train import state as train_state
from genjax.train.optimizers import keep_in_box
from genjax.train.parallel import in_main
from genjax.weights.vgg import load_vgg

STARTS = ("content", "noise", "blend")
CONTENT_LOSSES = ("squares", "self_similarity")
PUBLISHED_VARIANTS = ("keras", "torchvision")


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


def load_network(config, layers):
    """(`VGG` for `layers`, its parameters or None for random ones, what to tell of them)."""
    model = config.model
    choose(PUBLISHED_VARIANTS, model.variant, "model.variant")
    choose(vgg.BLOCKS, model.depth, "model.depth")
    choose(vgg.POOLS, model.pool, "model.pool")
    choose(("", *vgg.PADDINGS), model.padding, "model.padding")
    variant, depth, params, told, widths = model.variant, model.depth, None, "random", ()
    if config.weights != "random":
        _check_layers(layers, max(vgg.BLOCKS))
        try:
            loaded = load_vgg(layers, config.weights or None, variant, depth)
        except UserError as error:
            raise UserError(f"{error}; --config.weights=random runs without any") from error
        variant, depth, params = loaded.variant, loaded.depth, loaded.params
        widths = loaded.widths
        told = f"{Path(loaded.path).name} {loaded.sha256}"
    _check_layers(layers, depth)
    network = VGG(
        layers,
        depth,
        variant,
        model.pool,
        model.padding,
        widths,
        jnp.dtype(config.compute_dtype),
    )
    return network, params, told


def network_params(network, params, key, image_shape):
    """The parameters inside of a compiled function, given as a host's arrays or random."""
    shape = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    if params is None:
        return network.init(key, jnp.zeros(shape.shape))["params"]
    return given(params)


def _check_layers(layers, depth):
    for name in layers:
        try:
            vgg.canonical(name, depth)
        except ValueError as error:
            raise UserError(f"config.model: {error}, such as block4_conv2 or relu4_2") from error


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
    _check_layers(layers, config.model.depth)
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
    layers = tuple(dict.fromkeys((*config.model.content_layers, *config.model.style_layers)))
    network, params, told = load_network(config, layers)
    before = _before(config, image_shape) if config.init_from else None
    style = STYLE_LOSSES[config.objective.style]
    objective = config.objective
    style_pictures, style_masks = targets.styles(image_shape)
    masks = targets.masks("content", image_shape[:2])
    tiles = None
    if config.tile:
        reach = vgg.reach(layers, network.depth)
        tiles = make_tiles(*image_shape[:2], config.tile, *reach)
    content_layers, style_layers = config.model.content_layers, config.model.style_layers
    shares = config.model.style_layer_weights or (1.0,) * len(style_layers)
    shares = np.asarray(shares, np.float32) / np.sum(shares)

    def activations(params, images):
        """{layer: [H, W, C]} of one picture [1, H, W, 3]."""
        found = network.apply({"params": params}, images)
        return {name: x[0].astype(jnp.float32) for name, x in found.items()}

    def regions_of(found, masks, own=None):
        """{layer: [weights [h, w] or None for ones of each region]}."""
        if masks is None:
            return {name: [own and own(x.shape)] for name, x in found.items()}
        weights, pooled = {}, masks
        for name, x in found.items():
            pooled = masks
            while pooled.shape[1] >= 2 * x.shape[0]:
                pooled = average_pool(pooled)
            each = [pooled[r, :, :, 0] for r in range(masks.shape[0])]
            weights[name] = [m * own(x.shape) for m in each] if own else each
        return weights

    def describe(found, weights):
        """{layer: [sums of each region]} of the style layers."""
        return {n: [style.sums(found[n], w) for w in weights[n]] for n in style_layers}

    def style_target(params):
        """Sums by position, averaged over the styles."""
        each = []
        for picture, masks in zip(style_pictures, style_masks):
            found = activations(params, jnp.asarray(picture)[None])
            sums = describe(found, regions_of(found, masks))
            per_position = lambda s: {k: v / s.get("n", 1.0) for k, v in s.items()}
            each.append({n: [per_position(s) for s in regions] for n, regions in sums.items()})
        weights = targets.style_shares
        mean = jax.tree.map(lambda *x: sum(w * v for w, v in zip(weights, x)), *each)
        return {n: [style.prepare(s) for s in regions] for n, regions in mean.items()}

    def style_scale(target):
        """{layer: [what the distance to each region's target is divided by]}."""
        if not objective.relative or not style.additive:
            return {n: [jnp.ones(())] * len(regions) for n, regions in target.items()}

        def to_nothing(target):
            nothing = jax.tree.map(jnp.zeros_like, target)
            return style.distance({**nothing, "n": jnp.ones(())}, target)

        return {n: [to_nothing(t) for t in regions] for n, regions in target.items()}

    def init(key, images):
        content = unit(images)
        keys = jax.random.split(key)
        params_vgg = network_params(network, params, keys[0], image_shape)
        target = style_target(params_vgg)
        model_state = {"vgg": params_vgg, "style": target, "style_scale": style_scale(target)}
        if tiles is None and content_layers:
            found = activations(params_vgg, content)
            model_state["content"] = {n: content_of(found[n]) for n in content_layers}
        noise = jax.random.uniform(keys[1], content.shape)
        share = {"content": 0.0, "noise": 1.0, "blend": config.start.noise}[config.start["from"]]
        start = (1 - share) * content + share * noise
        return given(before[0]) if before else {"image": start}, model_state

    def init_opt(tx, params):
        # L-BFGS's picture of the curvature is one of the old size.
        carried = before and config.optim.name != "lbfgs"
        return given(before[1]) if carried else tx.init(params)

    def content_of(x):
        return some_positions(x) if objective.content == "self_similarity" else x

    def content_distance(x, target):
        """(sum over positions, what it is to be divided by)."""
        if objective.content == "self_similarity":
            return self_similarity_distance(content_of(x), target), 1.0
        scale = jnp.mean(target**2) if objective.relative else 1.0
        return jnp.mean((x - target) ** 2), scale

    def style_term(sums, model_state):
        total = 0.0
        for share, name in zip(shares, style_layers):
            target, scale = model_state["style"][name], model_state["style_scale"][name]
            each = [style.distance(*pair) / by for *pair, by in zip(sums[name], target, scale)]
            total += share * sum(each) / len(each)
        return total

    def terms_at_once(image, model_state):
        found = activations(model_state["vgg"], image)
        sums = describe(found, regions_of(found, masks))
        out = {"style": style_term(sums, model_state)}
        pairs = [(found[n], model_state["content"][n]) for n in content_layers]
        ratios = [content_distance(x, target) for x, target in pairs]
        out["content"] = sum(d / s for d, s in ratios) / max(len(ratios), 1)
        return out

    def terms_by_tiles(image, model_state, content):
        """The same; the content's activations are made anew in every window, which costs time."""

        def sums_of(start, owned, window, content, *masks):
            own = functools.partial(ownership, start, owned, tiles.window)
            found = activations(model_state["vgg"], window)
            regions = regions_of(found, masks[0] if masks else None, own)
            out = {"style": describe(found, regions), "content": {}}
            target = jax.lax.stop_gradient(activations(model_state["vgg"], content))
            for n in content_layers:
                w = own(found[n].shape)[:, :, None]
                out["content"][n] = {
                    "squares": jnp.sum(w * (found[n] - target[n]) ** 2),
                    "scale": jnp.sum(w * target[n] ** 2),
                    "n": jnp.sum(w) * found[n].shape[-1],
                }
            return out

        sums = sum_over_tiles(tiles, sums_of, image, content, *([] if masks is None else [masks]))
        out = {"style": style_term(sums["style"], model_state)}
        scale = "scale" if objective.relative else "n"
        found = [s["squares"] / s[scale] for s in sums["content"].values()]
        out["content"] = sum(found) / max(len(found), 1)
        return out

    def losses(image, model_state, content):
        if tiles is None:
            terms = terms_at_once(image, model_state)
        else:
            terms = terms_by_tiles(image, model_state, content)
        pixels = image.size if objective.relative else 1
        terms["total_variation"] = total_variation(image[0]) / pixels
        weights = {
            "content": objective.content_weight,
            "style": objective.style_weight,
            "total_variation": objective.tv_weight,
        }
        return sum(weights[name] * term for name, term in terms.items()), terms

    def loss_fn(params, model_state, batch, rngs, train):
        loss, terms = losses(params["image"], model_state, batch["image"])
        return loss, (terms, model_state)

    def eval_fn(params, model_state, batch, rngs):
        loss, terms = losses(params["image"], model_state, batch["image"])
        named = {"loss": loss, **{_protocol(name, config): x for name, x in terms.items()}}
        return {name: x[None] for name, x in named.items()}

    def make_train_step(tx, ema, axis_name):
        if config.optim.name == "lbfgs":
            return _lbfgs_step(loss_fn, tx, ema)
        return train_state.make_train_step(loss_fn, boxed(tx), ema, axis_name=axis_name)

    def boxed(tx):
        return optax.chain(tx, keep_in_box(0.0, 1.0)) if objective.clip else tx

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
        init_opt=lambda tx, params: init_opt(boxed(tx), params),
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


def _lbfgs_step(loss_fn, tx, ema):
    """One direction of L-BFGS and the search along it, several evaluations of the loss."""

    def train_step(state, batch):
        def value_fn(params):
            return loss_fn(params, state.model_state, batch, None, True)[0]

        value_and_grad = optax.value_and_grad_from_state(value_fn)
        value, grads = value_and_grad(state.params, state=state.opt_state)
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(state.params, updates)
        ema_params = ema.update(state.ema_params, params, state.step) if ema.enabled else {}
        tried = optax.tree.get(opt_state, "info").num_linesearch_steps
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), "line_search": tried}
        new_state = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params
        )
        return new_state, {**metrics, "grads": grads}

    return train_step


def _before(config, image_shape):
    """(the picture, the optimizer's state) of the size before, as NumPy arrays at this size.

    What has the picture's shape is resized, all else is as it was.
    """
    before = complete(_of_index(config, config.size_index - 1, ""))
    allow = ("eval.", "sample.", "init_from")
    state = restored(before, config.init_from, "latest", allow)[1]

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


def given(tree):
    """A host's arrays inside of a compiled function.

    As its constants they would be compiled with it, and kept in the cache of compiled programs.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    return jax.pure_callback(lambda: tree, shapes)


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
