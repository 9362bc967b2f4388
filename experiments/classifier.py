"""Image classifiers, which are also the feature nets of the metrics.

  loss = -sum_k q_k log p(k | x),   q = (1 - s) onehot(y) + s / K   (label smoothing s),

averaged over the batch.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import choose, require
from experiments.run import Experiment
from genjax import plots
from genjax.data.transforms import unit
from genjax.errors import UserError
from genjax.metrics import classification
from genjax.metrics.nets import save_net
from genjax.models.airbench import Airbench
from genjax.models.classifiers import CLASSIFIERS

# Training images that the whitening of `airbench` is computed from.
NUM_WHITENED = 5000


def one(x):
    return [(1.0, x)]


def flip(x):
    """The image and its mirror image."""
    return [(0.5, x), (0.5, x[:, :, ::-1])]


def multi_crop(x):
    """`flip` of the image, and of two copies that are moved by a pixel along the diagonal."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    return [
        (share * weight, view)
        for share, image in ((0.5, x), (0.25, moved[0]), (0.25, moved[1]))
        for weight, view in flip(image)
    ]


# Views [(weight, images)] whose logits are averaged in evaluation: config.eval.views.
VIEWS = {"one": one, "flip": flip, "multi_crop": multi_crop}


def build(config, image_shape, class_names, axis_name):
    """The classifier of a config, as the shared trainer takes it."""
    num_classes = len(class_names)
    if num_classes < 2:
        raise UserError(f"config.data.name='{config.data.name}' has no classes to tell apart")
    smoothing = config.objective.label_smoothing
    require(0 <= smoothing < 1, "objective.label_smoothing", smoothing, "in [0, 1)")
    sizes = config.model.to_dict()
    for key, value in sizes.items():
        if key not in ("name", "padding", "dropout"):
            least = 0 if key == "num_pools" else 1
            whole = all(n >= least for n in (value if isinstance(value, tuple) else (value,)))
            require(whole, f"model.{key}", value, f"at least {least}")
    choose(("SAME", "VALID"), sizes.get("padding", "SAME"), "model.padding")
    dropout = sizes.get("dropout", 0.0)
    require(0 <= dropout < 1, "model.dropout", dropout, "in [0, 1)")
    make_network = choose(CLASSIFIERS, sizes.pop("name"), "model.name")
    try:
        network = make_network(num_classes, config.compute_dtype, axis_name, **sizes)
    except TypeError as error:
        raise UserError(f"config.model does not fit '{config.model.name}': {error}") from error
    views = choose(VIEWS, config.eval.views, "eval.views")

    whitens = isinstance(network, Airbench)

    def init(key, *first):
        seen = {"init_images": unit(first[0])} if first else {}
        variables = dict(network.init(key, jnp.zeros((1, *image_shape)), **seen))
        return variables.pop("params"), variables

    def loss_fn(params, model_state, batch, rngs, train):
        out, model_state = network.apply(
            {"params": params, **model_state},
            batch["image"],
            train,
            mutable=list(model_state),
            rngs={"dropout": rngs.layer("dropout")},
        )
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], num_classes), smoothing)
        loss = jnp.mean(optax.softmax_cross_entropy(out["logits"], targets))
        correct = jnp.argmax(out["logits"], axis=-1) == batch["label"]
        return loss, ({"accuracy": jnp.mean(correct)}, model_state)

    def eval_fn(params, model_state, batch, rngs):
        variables = {"params": params, **model_state}
        seen = views(batch["image"])
        logits = sum(w * network.apply(variables, view)["logits"] for w, view in seen)
        return {"logits": logits, "label": batch["label"]}

    def summarize(values):
        logits, labels = values["logits"], values["label"]
        sums = classification.calibration_sums(logits, labels)
        return {
            "accuracy": classification.correct(logits, labels).mean(),
            "nll_nats": classification.negative_log_likelihood(logits, labels).mean(),
            "calibration_error": classification.expected_calibration_error(sums),
        }

    def eval_figures(values):
        predictions = np.argmax(values["logits"], axis=-1)
        matrix = classification.confusion_matrix(values["label"], predictions, num_classes)
        return {"confusion": plots.confusion(matrix, class_names)}

    def export(params, model_state, folder):
        """The network as a feature net for `config.eval.net`."""
        save_net(
            folder / "feature_net.npz",
            {"params": params, **model_state},
            name=re.sub("[^a-z0-9]+", "_", f"{config.model.name}_{config.data.name}".lower()),
            model=config.model.to_dict(),
            num_classes=num_classes,
            pixels=config.data.pixels,
            image_shape=image_shape,
            told={"config": json.loads(config.to_json())},
        )

    return Experiment(
        init=init,
        init_examples=NUM_WHITENED if whitens else 0,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        eval_figures=eval_figures,
        export=export,
    )
