"""The frozen VGG that style transfer looks through, optimised and instant alike."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.config import choose
from genjax.errors import UserError
from genjax.models import vgg
from genjax.models.vgg import VGG
from genjax.weights.vgg import load_vgg

PUBLISHED_VARIANTS = ("keras", "torchvision")


def load_network(config, layers):
    """(`VGG` for `layers`, its parameters or None for random ones, what to tell of them)."""
    model = config.model
    choose(PUBLISHED_VARIANTS, model.variant, "model.variant")
    choose(vgg.BLOCKS, model.depth, "model.depth")
    choose(vgg.POOLS, model.pool, "model.pool")
    choose(("", *vgg.PADDINGS), model.padding, "model.padding")
    variant, depth, params, told, widths = model.variant, model.depth, None, "random", ()
    if config.weights != "random":
        check_layers(layers, max(vgg.BLOCKS))
        try:
            loaded = load_vgg(layers, config.weights or None, variant, depth)
        except UserError as error:
            raise UserError(f"{error}; --config.weights=random runs without any") from error
        variant, depth, params = loaded.variant, loaded.depth, loaded.params
        widths = loaded.widths
        told = f"{Path(loaded.path).name} {loaded.sha256}"
    check_layers(layers, depth)
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
    if params is None:
        return network.init(key, jnp.zeros((1, *image_shape)))["params"]
    return given(params)


def given(tree):
    """A host's arrays inside of a compiled function.

    As its constants they would be compiled with it, and kept in the cache of compiled programs.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    return jax.pure_callback(lambda: tree, shapes)


def check_layers(layers, depth):
    """Refuses names that VGG-`depth` has not; UserError."""
    for name in layers:
        try:
            vgg.canonical(name, depth)
        except ValueError as error:
            raise UserError(f"config.model: {error}, such as block4_conv2 or relu4_2") from error
