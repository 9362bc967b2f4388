"""Neural style transfer by optimisation (Gatys et al. 2016): the picture is what is trained.

Its loss is in `experiments.style.picture_loss`. The picture is the parameters of a run, the content
picture its only training image; so resuming, checkpoints, averages of iterates and metrics are
those of any run. `config.sizes` goes from coarse to fine, see `experiments.style.sizes`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.style.frozen_vgg import (
    VGG_FIELDS,
    check_depth,
    check_layers,
    check_pool,
    from_host,
    load_frozen_vgg,
)
from experiments.style.pair import PAIR_FIELDS, Pair, pair_settings, scaled_size, style_shares
from experiments.style.picture_loss import CONTENT_LOSSES, PictureLoss, present_regions
from experiments.style.sizes import (
    SIZE_FIELDS,
    check_full_run,
    check_picture,
    check_sizes,
    config_of_size,
    copy_result,
    enlarged_state,
    folder_of_size,
)
from genjax import plots
from genjax.data.transforms import unit
from genjax.devices import gathered
from genjax.errors import UserError
from genjax.models import vgg
from genjax.objectives.style import STYLE_LOSSES
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import make_config
from genjax.runner.family import Family
from genjax.runner.fields import (
    check_fields,
    check_idle,
    field,
    is_set,
    merged,
    one_of,
    require,
    starts_with,
    unused,
)
from genjax.runner.terminal import say
from genjax.style import pictures
from genjax.style.color import match_color
from genjax.style.tiles import make_tiles
from genjax.train.optimizers import LINE_SEARCHING, keep_in_box
from genjax.train.parallel import in_main
from genjax.train.step import LossUpdate
from genjax.typing import AnyArray, Array, Float, Shape

# config.start.from -> share of noise in the picture that the optimisation starts with
STARTS = {
    "content": lambda start: 0.0,
    "noise": lambda start: 1.0,
    "blend": lambda start: start.noise,
}

CONTENT = is_set("model.content_layers")

# The data are the content picture.
_IGNORED = [key for key in SHARED["data"] if key not in ("name", "image_shape")]

FIELDS = merged(
    PAIR_FIELDS,
    VGG_FIELDS,
    SIZE_FIELDS,
    {
        "num_train_steps": dataclasses.replace(
            SHARED["num_train_steps"],
            # In a finished config it is the number of its own size.
            only_with=(one_of("size_steps", ()) | starts_with("data.name", "picture:"),),
        ),
        "data": unused(SHARED["data"], *_IGNORED),
        "sample": unused(SHARED["sample"]),
        "style_scale": field(1.0, "the style's longer side over the content's", above=0),
        "start": {
            "from": field("content", one_of=STARTS),
            "noise": field(
                0.5,
                "share of noise in blend",
                at_least=0,
                at_most=1,
                only_with=one_of("start.from", "blend"),
            ),
        },
        "guides": {
            "content": field((), "masks, light where a region is", items=str, names="picture"),
            "style": field(
                (), "its counterparts in each style picture", items=str, names="picture"
            ),
        },
        "tile": field(0, "pixels a side; 0: the picture at once", at_least=0),
        "model": {
            "content_layers": field(("block5_conv2",), items=str),
            "style_layers": field(tuple(f"block{i}_conv1" for i in range(1, 6)), nonempty=True),
            "style_layer_weights": field((), "(): equal", items=float, at_least=0),
        },
        "objective": {
            "content": field("squares", one_of=CONTENT_LOSSES, only_with=CONTENT),
            "style": field("gram", one_of=STYLE_LOSSES),
            "content_weight": field(1e4, at_least=0, only_with=CONTENT),
            "style_weight": field(1e-2, at_least=0),
            "tv_weight": field(0.0, "of the total variation", at_least=0),
            "relative": field(False, "each term over its value for a picture without features"),
            "clip": field(True, "keep pixels in [0, 1]"),
        },
    },
)


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    config = make_config("style_transfer", FIELDS)
    config.num_devices = config.batch_size = 1  # one picture
    config.update(eval_every_steps=0, sample_every_steps=100, checkpoint_every_steps=200)
    config.eval.batch_size = 1
    return config


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    one_size = len(config.sizes) == 1
    return {
        "data.name": "",
        "batch_size": 1,
        "num_train_steps": 8 if one_size else 4,
        "eval_every_steps": 0,
        "eval.batch_size": 1,
        "weights": "random",
        "sizes": (48,) if one_size else (40, 48),
        "size_steps": (),
        "model.content_layers": ("block2_conv1",),
        "model.style_layers": ("block1_conv1", "block2_conv1"),
        "model.style_layer_weights": (),
    }


def complete(config: ConfigDict) -> ConfigDict:
    """Returns the config with the picture as its dataset, and the steps at its size.

    Raises:
      UserError: fields that are not allowed, or a picture that cannot be used.
    """
    config = config.copy_and_resolve_references()
    check_fields(config, merged(SHARED, FIELDS))
    check_idle(config, merged(SHARED, FIELDS))
    check_sizes(config)
    check_picture(config)
    size = _scaled_size(config, config.content, "content", config.sizes[config.size_index])
    shape, default = tuple(config.data.image_shape), SHARED["data"]["image_shape"].default
    fits = shape == default or config.data.name.startswith("picture:")  # finished already
    what = f"{default}: the picture's shape follows from config.sizes"
    require(fits, "data.image_shape", shape, what)
    config.data.name = f"picture:{config.content}"
    config.data.image_shape = (size.height, size.width, 3)
    if config.size_steps:
        config.num_train_steps = config.size_steps[config.size_index]
    return config


def build(
    config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...] = ()
) -> "StyleTransfer":
    """Builds the optimisation of a finished config: one picture at one size."""
    _check(config)
    layers = _layers(config)
    check_pool(config, layers)
    network = load_frozen_vgg(config, layers)
    coarser = None
    if config.init_from:
        before = complete(config_of_size(config, config.size_index - 1))
        coarser = enlarged_state(before, config.init_from, image_shape)
    styles, style_masks = _read_styles(config, image_shape)
    masks = _read_masks(config, "content", pictures.Size(*image_shape[:2]))
    _check_regions(config, masks, style_masks)
    tiles = None
    if config.tile:
        reach = vgg.reach(layers, network.network.depth)
        tiles = make_tiles(*image_shape[:2], config.tile, *reach)
    objective = config.objective
    family = LineSearchTransfer if config.optim.name in LINE_SEARCHING else StyleTransfer
    return family(
        picture_loss=PictureLoss(
            vgg=network,
            content_layers=config.model.content_layers,
            style_layers=config.model.style_layers,
            content=objective.content,
            style=objective.style,
            content_weight=objective.content_weight,
            style_weight=objective.style_weight,
            tv_weight=objective.tv_weight,
            relative=objective.relative,
            layer_weights=config.model.style_layer_weights,
            style_shares=style_shares(config),
            masks=masks,
            tiles=tiles,
        ),
        styles=styles,
        style_masks=style_masks,
        noise=STARTS[config.start["from"]](config.start),
        clip=objective.clip,
        coarser=coarser,
        pair=Pair(**pair_settings(config)),
    )


def _check(config: ConfigDict) -> None:
    """Raises a UserError for fields that do not go together."""
    objective, model, guides = config.objective, config.model, config.guides
    weights, count = model.style_layer_weights, len(model.style_layers)
    fits = not weights or len(weights) == count and sum(weights) > 0
    what = f"empty, or {count} numbers of at least 0, not all 0"
    require(fits, "model.style_layer_weights", weights, what)
    style_shares(config)
    fits = len(guides.content) == len(guides.style)
    require(fits, "guides.style", guides.style, "as many masks as guides.content")
    additive = STYLE_LOSSES[objective.style].additive
    for key, value in (("guides.content", guides.content), ("more_styles", config.more_styles)):
        fits = additive or not value
        require(fits, key, value, f"empty with config.objective.style={objective.style}")
    local = additive and objective.content == "squares"
    what = "0 with losses that compare positions with each other"
    require(local or not config.tile, "tile", config.tile, what)
    require(config.batch_size == 1, "batch_size", config.batch_size, "1: there is one picture")
    searching = config.optim.name in LINE_SEARCHING
    what = f"False with config.optim.name={config.optim.name}"
    require(not (searching and objective.clip), "objective.clip", True, what)
    parts = config.optim.accumulate_steps
    require(parts == 1, "optim.accumulate_steps", parts, "1: there is one picture")


def _layers(config: ConfigDict) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*config.model.content_layers, *config.model.style_layers)))


def _scaled_size(config: ConfigDict, name: str, key: str, long_side: int) -> pictures.Size:
    """Returns the size of a picture with a longer side; refuses what the layers cannot see."""
    layers, depth = _layers(config), config.model.depth
    check_depth(depth)
    check_layers(layers, depth)
    return scaled_size(name, key, long_side, layers, depth)


def _read_styles(
    config: ConfigDict, image_shape: Shape
) -> tuple[tuple[Float[np.ndarray, "_ _ 3"], ...], tuple[Float[Array, "r _ _ 1"] | None, ...]]:
    """Returns the style pictures and the masks of their regions."""
    long_side = max(1, round(config.style_scale * max(image_shape[:2])))
    images, masks = [], []
    for name in (config.style, *config.more_styles):
        size = _scaled_size(config, name, "style", long_side)
        image = pictures.read_rgb(name, "style", size)
        if config.color == "histogram":
            content_size = pictures.Size(*image_shape[:2])
            image = match_color(image, pictures.read_rgb(config.content, "content", content_size))
        images.append(image)
        masks.append(_read_masks(config, "style", size))
    return tuple(images), tuple(masks)


def _read_masks(
    config: ConfigDict, kind: str, size: pictures.Size
) -> Float[Array, "r h w 1"] | None:
    """Returns the masks of config.guides, or None where there are none."""
    key, names = f"guides.{kind}", config.guides[kind]
    masks = [pictures.read_grey(name, key, size)[..., None] for name in names]
    for name, mask in zip(names, masks, strict=True):
        require(mask.max() > 0, key, name, "light somewhere")
    return jnp.asarray(np.stack(masks)) if masks else None


def _check_regions(
    config: ConfigDict,
    masks: Float[Array, "r h w 1"] | None,
    style_masks: Sequence[Float[Array, "r _ _ 1"] | None],
) -> None:
    """Says which regions of config.guides are too thin for which layers.

    Raises:
      UserError: a region is too thin for all layers, or a layer is too coarse for all regions.
    """
    if masks is None:
        return
    layers, depth, guides = config.model.style_layers, config.model.depth, config.guides
    content = present_regions(masks, layers, depth)
    styles = [present_regions(own, layers, depth) for own in style_masks]
    places = [("the picture", guides.content, content)]
    places += [(f"style {i}", guides.style, found) for i, found in enumerate(styles, 1)]
    for name in layers:
        gone = [
            f"{mask} in {what}"
            for what, files, found in places
            for mask, here in zip(files, found[name], strict=True)
            if not here
        ]
        if gone:
            say(
                f"config.guides: pooling leaves nothing of these regions at {name}, where they "
                f"count as nothing: {', '.join(gone)}"
            )
    shown = [found for found, share in zip(styles, style_shares(config), strict=True) if share]
    used = np.array([np.any([s[n] for s in shown], axis=0) & content[n] for n in layers])
    wider = "make it wider, or choose config.model.style_layers nearer to the pixels"
    for mask, layers_of in zip(guides.content, used.T, strict=True):
        if not layers_of.any():
            raise UserError(
                f"config.guides.content: pooling leaves nothing of the region {mask}, or of its "
                f"counterparts, at any of {', '.join(layers)}; {wider}"
            )
    for name, regions in zip(layers, used, strict=True):
        if not regions.any():
            raise UserError(
                f"config.guides: pooling leaves nothing of any region at {name}; {wider}"
            )


def train(
    config: ConfigDict,
    workdir: Path,
    source: dict[str, str],
    train_one: Callable[[ConfigDict, Path, dict[str, str]], dict[str, Any]],
) -> dict[str, Any]:
    """Trains a run for each size; the result of the last is the result."""
    check_full_run(config)
    if len(config.sizes) == 1:
        return train_one(complete(config), workdir, source)
    for index in range(len(config.sizes)):
        init_from = folder_of_size(config, workdir, index - 1) if index else ""
        one = complete(config_of_size(config, index, init_from))
        folder = folder_of_size(config, workdir, index)
        say(f"size {index + 1} of {len(config.sizes)}: {one.data.image_shape[:2]}")
        report = train_one(one, folder, source)
    in_main(lambda: copy_result(folder, workdir, report))
    return report


@dataclasses.dataclass(frozen=True, eq=False)
class StyleTransfer(Family):
    """The optimisation of one picture; parameters are {"image": [1, H, W, 3]}.

    Attributes:
      picture_loss: of the picture, with the VGG.
      styles: pictures in [0, 1].
      style_masks: regions of each style, the counterparts of `picture_loss.masks`; () for none.
      noise: share of noise in the picture at the start, the rest is the content.
      clip: whether pixels are kept in [0, 1].
      coarser: picture and optimizer state to start with instead, as NumPy arrays, from a run at a
        smaller size.
      pair: the pictures' names, and how the result is saved.
    """

    picture_loss: PictureLoss
    styles: Sequence[Float[AnyArray, "_ _ 3"]]
    style_masks: Sequence[Float[AnyArray, "r _ _ 1"] | None] = ()
    noise: float = 0.0
    clip: bool = True
    coarser: tuple[Any, Any] | None = None
    pair: Pair = Pair()

    num_init_examples = 1

    @property
    def frozen(self) -> dict[str, str]:
        return {"vgg": self.picture_loss.vgg.description}

    def init(self, key, images=None):
        content = unit(images)
        keys = jax.random.split(key)
        params = self.picture_loss.vgg.init(keys[0])
        targets = self.picture_loss.targets(params, content, self.styles, self.style_masks)
        noise = jax.random.uniform(keys[1], content.shape)
        image = (1 - self.noise) * content + self.noise * noise
        picture = from_host(self.coarser[0]) if self.coarser else {"image": image}
        return picture, {"vgg": params, **targets}

    def loss(self, params, model_state, batch, rngs=None, train=True):
        loss, terms = self.picture_loss(
            params["image"], model_state["vgg"], model_state, batch["image"]
        )
        return loss, (terms, model_state)

    def init_optimizer(self, tx, params):
        if self.coarser:
            return from_host(self.coarser[1])
        return self._within_box(tx).init(params)

    def train_step(self, state, batch, rngs, tx, ema):
        return LossUpdate(self.loss, self._within_box(tx), ema)(state, batch, rngs)

    def _within_box(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns an optimizer that, with `clip`, keeps pixels in [0, 1]."""
        return optax.chain(tx, keep_in_box(0.0, 1.0)) if self.clip else tx

    def evaluate(self, params, model_state, batch, rngs=None):
        loss, (terms, _) = self.loss(params, model_state, batch, rngs, train=False)
        values = {"loss": loss, **{self._metric(name): x for name, x in terms.items()}}
        return {name: x[None] for name, x in values.items()}

    def _metric(self, term: str) -> str:
        """Returns the name of a term's metric, with the distance and the network."""
        kinds = {"content": self.picture_loss.content, "style": self.picture_loss.style}
        depth = self.picture_loss.vgg.network.depth
        return f"{term}_{kinds[term]}_vgg{depth}" if term in kinds else term

    def figures(self, params, model_state, batch):
        return {"image": plots.to_uint8(self.pair.finish(params["image"][0]))}

    def export(self, params, model_state, folder):
        provenance = {"weights": self.picture_loss.vgg.description}
        self.pair.save(folder, self.pair.finish(params["image"][0]), provenance)


@dataclasses.dataclass(frozen=True, eq=False)
class LineSearchTransfer(StyleTransfer):
    """The same by an optimizer that evaluates the loss several times a step, such as L-BFGS.

    It keeps no bounds on pixels, and of a run at a smaller size it takes the picture alone: the
    curvature that it remembers is one of that size.
    """

    clip: bool = False

    line_search = True

    def init_optimizer(self, tx, params):
        return tx.init(params)

    def train_step(self, state, batch, rngs, tx, ema):
        def value_fn(params):
            return self.loss(gathered(params), state.model_state, batch, rngs)[0]

        value_and_grad = optax.value_and_grad_from_state(value_fn)
        value, grads = value_and_grad(state.params, state=state.opt_state)
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn
        )
        params = optax.apply_updates(state.params, updates)
        ema_params = ema.update(state.ema_params, params, state.updates) if ema.enabled else {}
        new_state = state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, ema_params=ema_params
        )
        searched = optax.tree.get(opt_state, "info").num_linesearch_steps
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), "line_search": searched}
        return new_state, {**metrics, "grads": grads}
