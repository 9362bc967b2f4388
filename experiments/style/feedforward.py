"""A network for one style (Johnson et al. 2016): trained on any images, then one pass a picture.

  loss(theta) = a sum_l |F_l(f(x)) - F_l(x)|^2 + b sum_l d(S_l(f(x)), S_l(s)) + g TV(f(x))

in the symbols of `experiments.style.picture_loss`, f the network, averaged over the images x of
`config.data`; every term is relative to its target's own size.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.style.frozen_vgg import FrozenVgg, check_pool, load_frozen_vgg
from experiments.style.stylize import MAY_DIFFER, STYLIZE_FIELDS, Stylization, check_pixels
from genjax import plots
from genjax.models.stylizers import TransformNet
from genjax.objectives.style import STYLE_LOSSES, total_variation
from genjax.runner.config import make_config
from genjax.runner.family import Family
from genjax.runner.fields import field, is_set, merged, require
from genjax.runner.restore import restored_run
from genjax.train.parallel import in_main
from genjax.typing import AnyArray, Array, Float, ModelState, Params, Shape

STRIDE = 4  # of the network
NUM_SHOWN = 6

FIELDS = merged(
    STYLIZE_FIELDS,
    {
        "model": {
            "depth": dataclasses.replace(STYLIZE_FIELDS["model"]["depth"], default=16),
            "content_layers": field(("relu3_3",), items=str),
            "style_layers": field(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), nonempty=True),
            "channels": field(32, "of the first convolution", at_least=1),
            "num_blocks": field(5, "residual blocks", at_least=0),
        },
        "objective": {
            "style": field("gram", one_of=[k for k, v in STYLE_LOSSES.items() if v.additive]),
            "content_weight": field(1.0, at_least=0, only_with=is_set("model.content_layers")),
            "style_weight": field(5.0, at_least=0),
            "tv_weight": field(0.5, "of the total variation", at_least=0),
        },
    },
)


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("feedforward_style", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    return {
        "weights": "random",
        "model.content_layers": ("relu1_1",),
        "model.style_layers": ("relu1_1",),
        "model.channels": 4,
        "model.num_blocks": 0,
        "data.image_shape": (12, 12, 3),
        "size": 24,
        "style_size": 24,
        "batch_size": 4,
    }


def build(
    config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...] = ()
) -> "FeedforwardStyle":
    """Builds the network of a config's style."""
    _check(config, image_shape)
    model, objective = config.model, config.objective
    layers = tuple(dict.fromkeys((*model.content_layers, *model.style_layers)))
    vgg = load_frozen_vgg(config, layers)
    check_pool(config, layers)
    stylization = Stylization.of(config)
    _, styles = stylization.read(layers, vgg.network.depth)
    dtype = jnp.dtype(config.compute_dtype)
    return FeedforwardStyle(
        network=TransformNet(model.channels, model.num_blocks, dtype),
        vgg=vgg,
        style_image=styles[0],
        content_layers=model.content_layers,
        style_layers=model.style_layers,
        style=objective.style,
        content_weight=objective.content_weight,
        style_weight=objective.style_weight,
        tv_weight=objective.tv_weight,
        stylization=stylization,
    )


def _check(config: ConfigDict, image_shape: Shape) -> None:
    """Raises a UserError for fields without a use here, or images that do not fit."""
    check_pixels(config)
    require(not config.more_styles, "more_styles", config.more_styles, "empty: it learns one style")
    require(config.strength == 1, "strength", config.strength, "1: it is learnt")
    fits = image_shape[2] == 3 and all(n % STRIDE == 0 for n in image_shape[:2])
    what = f"(H, W, 3), H and W multiples of {STRIDE}"
    require(fits, "data.image_shape", tuple(image_shape), what)


@dataclasses.dataclass(frozen=True, eq=False)
class FeedforwardStyle(Family):
    """A network for one style.

    Attributes:
      network: images [B, H, W, 3] in [0, 1] -> the same, in the style; H and W multiples of 4.
      vgg: returns the activations of all layers below.
      style_image: the style picture, in [0, 1].
      content_layers, style_layers: names of activations.
      style: a name in `genjax.objectives.style.STYLE_LOSSES`, additive.
      content_weight, style_weight, tv_weight: of the three terms: a, b, g.
      stylization: what `export` and `draw` draw.
    """

    network: TransformNet
    vgg: FrozenVgg
    style_image: Float[AnyArray, "h w 3"]
    content_layers: tuple[str, ...] = ("relu3_3",)
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    style: str = "gram"
    content_weight: float = 1.0
    style_weight: float = 5.0
    tv_weight: float = 0.5
    stylization: Stylization = Stylization()

    @property
    def frozen(self) -> dict[str, str]:
        return {"vgg": self.vgg.description}

    def init(self, key, images=None):
        keys = jax.random.split(key)
        example = jnp.zeros((1, 4 * STRIDE, 4 * STRIDE, 3))
        params = self.network.init(keys[0], example)["params"]
        vgg = self.vgg.init(keys[1])
        found = self.vgg.activations(vgg, jnp.asarray(self.style_image)[None])
        sums = STYLE_LOSSES[self.style].sums
        return params, {"vgg": vgg, "style": {n: sums(found[n][0]) for n in self.style_layers}}

    def apply(self, params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns images in the style."""
        return self.network.apply({"params": params}, images)

    _apply_jit = functools.cached_property(lambda self: jax.jit(self.apply))

    # ---- Training and evaluation ----

    def _style_distance(self, x, target):
        """Returns the distance of activations [h, w, C] to a target, over that of zeros."""
        loss = STYLE_LOSSES[self.style]
        sums = loss.sums(x)
        zeros = {k: jnp.ones_like(v) if k == "n" else jnp.zeros_like(v) for k, v in sums.items()}
        return loss.distance(sums, target) / loss.distance(zeros, target)

    def losses(
        self, params: Params, model_state: ModelState, images: Float[Array, "b h w 3"]
    ) -> dict[str, Float[Array, " b"]]:
        """Returns the loss of each image, and its terms without weights."""
        drawn = self.apply(params, images)
        found = self.vgg.activations(model_state["vgg"], drawn)
        content = self.vgg.activations(model_state["vgg"], images)
        square = lambda x: jnp.mean(x**2, axis=(1, 2, 3))
        contents = [
            square(found[n] - content[n]) / square(content[n] + 1e-6) for n in self.content_layers
        ]
        styles = [
            jax.vmap(self._style_distance, (0, None))(found[n], model_state["style"][n])
            for n in self.style_layers
        ]
        terms = {
            "content": sum(contents) / max(len(contents), 1),
            "style": sum(styles) / len(styles),
            "total_variation": jax.vmap(total_variation)(drawn) / images[0].size,
        }
        loss = self.content_weight * terms["content"]
        loss += self.style_weight * terms["style"]
        return {"loss": loss + self.tv_weight * terms["total_variation"], **terms}

    def loss(self, params, model_state, batch, rngs=None, train=True):
        terms = jax.tree.map(jnp.mean, self.losses(params, model_state, batch["image"]))
        return terms.pop("loss"), (terms, model_state)

    def evaluate(self, params, model_state, batch, rngs=None):
        return self.losses(params, model_state, batch["image"])

    # ---- Drawing ----

    def figures(self, params, model_state, batch):
        images = batch["image"][:NUM_SHOWN]
        rows = [plots.to_uint8(x) for x in (images, self._apply_jit(params, images))]
        return {"stylized": plots.grid(np.concatenate(rows), len(images))}

    def export(self, params, model_state, folder):
        self.draw(params, folder)

    def draw(self, params: Params, folder: str | Path) -> dict[str, Any]:
        """Draws and saves the picture of the stylization; returns its values for a report."""
        content, _ = self.stylization.read(["relu3_1"])
        stylize = lambda images: self._apply_jit(params, images)
        provenance = {"weights": self.vgg.description}
        return self.stylization.draw(folder, content, stylize, STRIDE, provenance)


def sample(config: ConfigDict, workdir: Path, source: dict[str, str], step: str) -> None:
    """Draws config.content with the network that was trained in a workdir."""
    allow = tuple(key for key in MAY_DIFFER if key not in ("style", "style_size"))
    run, state, _ = restored_run(config, workdir, step, allow)
    params = run.parallel.to_local(state.eval_params)
    in_main(lambda: run.family.draw(params, workdir))
