"""Image classifiers, which are also the feature nets of the metrics.

  loss = -sum_k q_k log p(k | x),   q = (1 - s) onehot(y) + s / K   (label smoothing s),

averaged over the batch.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from genjax import plots
from genjax.data.transforms import unit
from genjax.metrics import classification
from genjax.metrics.nets import save_net
from genjax.models.airbench import Airbench
from genjax.models.classifiers import CLASSIFIERS
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import make_config
from genjax.runner.family import Family
from genjax.runner.fields import Choice, field, require, unused
from genjax.typing import Array, Float, ModelState, Params, Shape

# Training images that the whitening of `airbench` is computed from.
NUM_WHITENED = 5000

WHITENED = 24  # channels that whitening has: both signs of those of 2x2 patches of three colours

# Views of images and the weights of their logits.
Views = list[tuple[float, Float[Array, "b h w c"]]]


def one(x: Float[Array, "b h w c"]) -> Views:
    """Returns the images themselves."""
    return [(1.0, x)]


def flip(x: Float[Array, "b h w c"]) -> Views:
    """Returns the images and their mirror images."""
    return [(0.5, x), (0.5, x[:, :, ::-1])]


def multi_crop(x: Float[Array, "b h w c"]) -> Views:
    """Returns `flip` of the images and of two copies, moved by a pixel along the diagonal."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    return [
        (share * weight, view)
        for share, images in ((0.5, x), (0.25, moved[0]), (0.25, moved[1]))
        for weight, view in flip(images)
    ]


# config.eval.views -> the views whose logits are averaged in evaluation
VIEWS: dict[str, Callable[[Array], Views]] = {"one": one, "flip": flip, "multi_crop": multi_crop}

NETWORKS = Choice(
    {
        "cnn": {
            "features": field((32, 64, 64), "channels of the convolutions", at_least=1),
            "num_pools": field(2, "convolutions that pooling follows", at_least=0),
            "padding": field("VALID", "of the convolutions", one_of=("SAME", "VALID")),
            "hidden": field(64, "units of the hidden layer", at_least=1),
            "dropout": field(0.0, "before the last layer", at_least=0, below=1),
        },
        "resnet": {
            "blocks": field((2, 2, 2, 2), "of each stage", at_least=1),
            "width": field(64, "channels of the first stage; each stage doubles them", at_least=1),
        },
        "airbench": {"features": field((64, 256, 256), "channels of each group", at_least=1)},
    }
)

FIELDS = {
    "model": NETWORKS,
    "sample": unused(SHARED["sample"]),
    "objective": {"label_smoothing": field(0.0, at_least=0, below=1)},
    "eval": {"views": field("one", "of each image, whose logits are averaged", one_of=VIEWS)},
}


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("classifier", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a run of this family tiny."""
    model = config.model
    values = {"optim.warmup_steps": min(config.optim.warmup_steps, 2), "sample_every_steps": 0}
    if model.name == "cnn":
        return values | {
            "model.features": (4, 8, 8)[: len(model.features)],
            "model.hidden": 16,
        }
    if model.name == "resnet":
        return values | {"model.width": 4}
    return values | {"model.features": (24, 24, 24)}  # no fewer than whitening has


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...]) -> "Classifier":
    """Builds the classifier of a config."""
    what = f"a dataset of at least two classes, not {len(class_names)}"
    require(len(class_names) > 1, "data.name", config.data.name, what)
    _check(config)
    model = config.model.to_dict()
    sizes = {key: value for key, value in model.items() if key != "name"}
    feature_net = None
    if config.data.pixels in ("unit", "symmetric"):  # features of an image are not random
        feature_net = {
            "name": re.sub("[^a-z0-9]+", "_", f"{model['name']}_{config.data.name}".lower()),
            "model": model,
            "pixels": config.data.pixels,
            "provenance": {"config": json.loads(config.to_json())},
        }
    return Classifier(
        network=CLASSIFIERS[model["name"]](len(class_names), config.compute_dtype, **sizes),
        image_shape=image_shape,
        class_names=tuple(class_names),
        label_smoothing=config.objective.label_smoothing,
        views=config.eval.views,
        feature_net=feature_net,
    )


def _check(config: ConfigDict) -> None:
    """Raises a UserError for fields that do not go together, or have no effect."""
    model, pixels, every = config.model, config.data.pixels, config.sample_every_steps
    silent = every in (0, SHARED["sample_every_steps"].default)
    require(silent, "sample_every_steps", every, "0: a classifier has nothing to draw")
    require(pixels != "integers", "data.pixels", pixels, "a kind of scaled pixels")
    if model.name == "cnn":
        fits = model.num_pools <= len(model.features)
        what = f"at most the {len(model.features)} convolutions of model.features"
        require(fits, "model.num_pools", model.num_pools, what)
    if model.name == "airbench":
        what = "unit with config.model.name=airbench, which scales pixels itself"
        require(pixels == "unit", "data.pixels", pixels, what)
        widths, least = tuple(model.features), WHITENED
        rising = widths and list((least, *widths)) == sorted((least, *widths))
        what = f"widths of at least {least}, from narrow to wide"
        require(rising, "model.features", widths, what)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(Family):
    """A classifier: a network and settings; parameters and batches are arguments of its methods.

    Attributes:
      network: (x [B, H, W, C], train) -> {"features": [B, F], "logits": [B, K]}.
      image_shape: (H, W, C).
      class_names: K of them.
      label_smoothing: s.
      views: a key of `VIEWS`.
      feature_net: what `genjax.metrics.nets.save_net` records of the network: its name, model,
        pixels and provenance; None: the trained network is not exported.
    """

    network: nn.Module
    image_shape: Shape
    class_names: tuple[str, ...]
    label_smoothing: float = 0.0
    views: str = "one"
    feature_net: Mapping[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_init_examples(self) -> int:
        return NUM_WHITENED if isinstance(self.network, Airbench) else 0

    # ---- Training ----

    def init(self, key, images=None):
        whitened = {} if images is None else {"init_images": unit(images)}
        variables = dict(self.network.init(key, jnp.zeros((1, *self.image_shape)), **whitened))
        return variables.pop("params"), variables

    def loss(self, params, model_state, batch, rngs, train=True):
        outputs, model_state = self.network.apply(
            {"params": params, **model_state},
            batch["image"],
            train,
            mutable=list(model_state),
            rngs={"dropout": rngs.layer("dropout")},
        )
        logits, labels = outputs["logits"], batch["label"]
        one_hot = jax.nn.one_hot(labels, self.num_classes)
        targets = optax.smooth_labels(one_hot, self.label_smoothing)
        loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
        correct = jnp.argmax(logits, axis=-1) == labels
        return loss, ({"accuracy": jnp.mean(correct)}, model_state)

    # ---- Evaluation ----

    def logits(
        self, params: Params, model_state: ModelState, x: Float[Array, "b h w c"]
    ) -> Float[Array, "b k"]:
        """Returns the logits of images, averaged over their views."""
        variables = {"params": params, **model_state}
        views = VIEWS[self.views](x)
        return sum(weight * self.network.apply(variables, v)["logits"] for weight, v in views)

    def evaluate(self, params, model_state, batch, rngs):
        logits = self.logits(params, model_state, batch["image"])
        return {"logits": logits, "label": batch["label"]}

    def summarize(self, values):
        logits, labels = values["logits"], values["label"]
        sums = classification.calibration_sums(logits, labels)
        return {
            "accuracy": classification.correct(logits, labels).mean(),
            "nll_nats": classification.negative_log_likelihood(logits, labels).mean(),
            "calibration_error": classification.expected_calibration_error(sums),
        }

    def evaluation_figures(self, values):
        predictions = np.argmax(values["logits"], axis=-1)
        matrix = classification.confusion_matrix(values["label"], predictions, self.num_classes)
        return {"confusion": plots.confusion(matrix, self.class_names)}

    # ---- The feature net ----

    @property
    def export(self) -> Callable[[Params, ModelState, Path], None] | None:
        return self._export if self.feature_net else None

    def _export(self, params: Params, model_state: ModelState, folder: Path) -> None:
        """Writes feature_net.npz, the network as a feature net for config.eval.net."""
        save_net(
            folder / "feature_net.npz",
            {"params": params, **model_state},
            num_classes=self.num_classes,
            image_shape=self.image_shape,
            **self.feature_net,
        )
