"""A network for one style (Johnson et al. 2016): trained on any pictures, then one pass a picture.

  loss(theta) = a sum_l |F_l(f(x)) - F_l(x)|^2 + b sum_l d(S_l(f(x)), S_l(s)) + g TV(f(x))

in the symbols of `experiments.style_transfer`, averaged over the pictures x of `config.data`; every
term relative to its target's own size.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import stylize
from experiments.config import base_config, choose, require
from experiments.evaluation import restored
from experiments.frozen_vgg import load_network, network_params
from experiments.run import Experiment
from genjax import plots
from genjax.models.stylizers import TransformNet
from genjax.objectives.style import STYLE_LOSSES, total_variation
from genjax.train.parallel import in_main

STRIDE = 4  # of the network
NUM_SHOWN = 6


def feedforward_config():
    """The fields of this family at their defaults."""
    config = base_config()
    config.experiment = "feedforward_style"
    stylize.add_fields(config)
    config.model = {
        "variant": "keras",
        "depth": 16,
        "pool": "max",
        "padding": "",
        "content_layers": ("relu3_3",),
        "style_layers": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        "channels": 32,
        "num_blocks": 5,
    }
    config.objective = {
        "style": "gram",
        "content_weight": 1.0,
        "style_weight": 5.0,
        "tv_weight": 0.5,
    }
    return config


def build(config, image_shape, class_names, axis_name):
    """The network of a style, as the shared trainer takes it."""
    del class_names, axis_name
    _check(config, image_shape)
    objective, model = config.objective, config.model
    content_layers, style_layers = model.content_layers, model.style_layers
    layers = tuple(dict.fromkeys((*content_layers, *style_layers)))
    network, params_vgg, told = load_network(config, layers)
    style_loss = STYLE_LOSSES[objective.style]
    transform = _transform(config)
    _, styles = stylize.read_pictures(config, layers[-1], network.depth)

    def features(params, images):
        found = network.apply({"params": params}, images)
        return {name: x.astype(jnp.float32) for name, x in found.items()}

    def init(key):
        keys = jax.random.split(key)
        params = transform.init(keys[0], jnp.zeros((1, *image_shape)))["params"]
        vgg = network_params(network, params_vgg, keys[1], image_shape)
        found = features(vgg, jnp.asarray(styles[0])[None])
        return params, {
            "vgg": vgg,
            "style": {n: style_loss.sums(found[n][0]) for n in style_layers},
        }

    def style_distance(sums, target):
        nothing = {k: jnp.ones_like(v) if k == "n" else jnp.zeros_like(v) for k, v in sums.items()}
        return style_loss.distance(sums, target) / style_loss.distance(nothing, target)

    def losses(params, model_state, images):
        """[B] each."""
        drawn = transform.apply({"params": params}, images)
        found = features(model_state["vgg"], drawn)
        content = features(model_state["vgg"], images)
        square = lambda x: jnp.mean(x**2, axis=(1, 2, 3))
        terms = {
            "content": sum(
                square(found[n] - content[n]) / square(content[n] + 1e-6) for n in content_layers
            )
            / max(len(content_layers), 1),
            "style": sum(
                jax.vmap(
                    lambda x, n=n: style_distance(style_loss.sums(x), model_state["style"][n])
                )(found[n])
                for n in style_layers
            )
            / len(style_layers),
            "total_variation": jax.vmap(total_variation)(drawn) / images[0].size,
        }
        loss = objective.content_weight * terms["content"]
        loss += objective.style_weight * terms["style"]
        return {"loss": loss + objective.tv_weight * terms["total_variation"], **terms}

    def loss_fn(params, model_state, batch, rngs, train):
        terms = jax.tree.map(jnp.mean, losses(params, model_state, batch["image"]))
        return terms.pop("loss"), (terms, model_state)

    def eval_fn(params, model_state, batch, rngs):
        return losses(params, model_state, batch["image"])

    show = jax.jit(lambda params, images: transform.apply({"params": params}, images))

    def figures(params, model_state, batch):
        images = batch["image"][:NUM_SHOWN]
        rows = np.concatenate([plots.to_uint8(x) for x in (images, show(params, images))])
        return {"stylized": plots.grid(rows, len(images))}

    def export(params, model_state, folder):
        _draw(config, folder, params, told)

    return Experiment(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        figures=figures,
        export=export,
        frozen={"vgg": told},
    )


def _transform(config):
    model = config.model
    return TransformNet(model.channels, model.num_blocks, jnp.dtype(config.compute_dtype))


def _check(config, image_shape):
    stylize.check(config)
    style = choose(STYLE_LOSSES, config.objective.style, "objective.style")
    require(style.additive, "objective.style", config.objective.style, "a loss of moments")
    require(not config.more_styles, "more_styles", config.more_styles, "empty: it learns one style")
    require(config.strength == 1, "strength", config.strength, "1: it is learnt")
    require(len(config.model.style_layers) > 0, "model.style_layers", (), "at least one layer")
    for key in ("content_weight", "style_weight", "tv_weight"):
        weight = config.objective[key]
        require(0 <= weight < np.inf, f"objective.{key}", weight, "at least 0 and finite")
    for key, least in (("channels", 1), ("num_blocks", 0)):
        require(config.model[key] >= least, f"model.{key}", config.model[key], f"at least {least}")
    fits = image_shape[2] == 3 and all(n % STRIDE == 0 for n in image_shape[:2])
    what = f"(H, W, 3), H and W multiples of {STRIDE}"
    require(fits, "data.image_shape", tuple(image_shape), what)


def _draw(config, workdir, params, told):
    content, _ = stylize.read_pictures(config, "relu3_1")
    transform = jax.jit(_transform(config).apply)
    draw = lambda image: transform({"params": params}, image)
    return stylize.save_stylized(config, workdir, content, draw, STRIDE, {"weights": told})


def sample(config, workdir, source, step):
    """Draws config.content with what was trained in a workdir."""
    allow = [key for key in stylize.ALLOW if key not in ("style", "style_size")]
    run, state, _ = restored(config, workdir, step, tuple(allow))
    params = run.parallel.to_local(state.eval_params)
    in_main(lambda: _draw(config, workdir, params, config.weights or "published"))
