"""Whitening and colouring transforms (Li et al. 2017): a style from decoders trained on none.

From the deepest level to the first: features of the picture so far get mean and covariance of the
style's, and a decoder makes a picture of them, which the next level starts from. There is nothing
to train; `launch.py` draws the picture.
"""

import jax
import jax.numpy as jnp

from experiments import stylize
from experiments.config import base_config, require
from experiments.frozen_vgg import load_network
from experiments.run import say
from genjax import files
from genjax.errors import UserError
from genjax.models.stylizers import Decoder
from genjax.models.vgg import VARIANTS, reach
from genjax.style.features import mixture, whiten_and_color
from genjax.train.parallel import in_main
from genjax.weights.vgg import load_decoder


def wct_config():
    """The fields of this family at their defaults."""
    config = base_config()
    config.experiment = "wct"
    stylize.add_fields(config)
    # Files, "{}" standing for the level; "random" as weights needs no decoder.
    config.weights = "encoder{}.npz"
    config.decoder = "decoder{}.npz"
    config.levels = (5, 4, 3, 2, 1)
    config.strength = 0.6
    config.model = {"variant": "keras", "depth": 19, "pool": "max", "padding": ""}
    return config


def build(config, image_shape, class_names, axis_name):
    raise UserError("config.experiment='wct' has no training: --mode=train draws the picture")


def load_levels(config):
    """[(layer, encoder, its parameters, decoder, its parameters)], and what to tell of them."""
    levels = config.levels
    able = len(levels) > 0 and all(type(n) is int and 1 <= n <= 5 for n in levels)
    require(able, "levels", levels, "numbers of 1 to 5, such as (3, 2, 1)")
    found, told = [], {}
    for level in levels:
        layer, one = f"relu{level}_1", config.copy_and_resolve_references()
        one.weights = config.weights.replace("{}", str(level))
        network, params, about = load_network(one, (layer,))
        widths = network.widths or VARIANTS[network.variant].widths
        decoder = Decoder(layer, widths)
        if params is None:
            key = jax.random.key(config.seed)
            images = jnp.zeros((1, 32, 32, 3))
            params = jax.jit(network.init)(key, images)["params"]
            features = jnp.zeros((1, 2, 2, widths[level - 1]))
            decoder_params = jax.jit(decoder.init)(key, features)["params"]
        else:
            path = config.decoder.replace("{}", str(level))
            layers, _ = load_decoder(path)
            stylize.check_decoder(layers, layer, widths, path)
            decoder_params = stylize.as_decoder(layers)
        told[layer] = about
        found.append((layer, network, params, decoder, decoder_params))
    return found, told


def make_draw(config, levels, styles, shares):
    """(images [1, H, W, 3]) -> the same in the style; each level a program of its own."""

    def step(layer, network, decoder, params, decoder_params, image, styles):
        features = lambda x: network.apply({"params": params}, x)[layer].astype(jnp.float32)
        content = features(image)
        colored = [whiten_and_color(content[0], features(s)[0])[None] for s in styles]
        mixed = mixture(content, colored, config.strength, shares)
        return jnp.clip(decoder.apply({"params": decoder_params}, mixed), 0, 1)

    compiled = [jax.jit(step, static_argnums=(0, 1, 2)) for _ in levels]
    styles = [jnp.asarray(style)[None] for style in styles]

    def draw(image):
        for level, (layer, network, params, decoder, decoder_params) in zip(compiled, levels):
            image = level(layer, network, decoder, params, decoder_params, image, styles)
        return image

    return draw


def train(config, workdir, source, train_one):
    """Draws the picture."""
    del train_one
    shares = stylize.check(config)
    levels, told = load_levels(config)
    deepest = max(level[0] for level in levels)
    content, styles = stylize.read_pictures(config, deepest)
    draw = make_draw(config, levels, styles, shares)
    stride = reach([deepest])[0]

    report = dict(source)

    def save():
        report.update(stylize.save_stylized(config, workdir, content, draw, stride, told))
        files.write_json(workdir / "report.json", report)

    in_main(save)
    say(f"everything is in {workdir}")
    return report


def sample(config, workdir, source, step):
    """The same."""
    return train(config, workdir, source, None)
