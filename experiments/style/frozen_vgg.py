"""The VGG whose activations style transfer compares: its config fields, and its frozen weights."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from genjax.errors import UserError
from genjax.models import vgg
from genjax.models.vgg import VARIANTS, VGG
from genjax.runner.fields import field, one_of, require
from genjax.typing import AnyArray, Array, Float, Key, Params
from genjax.weights.vgg import load_vgg

PUBLISHED_VARIANTS = ("keras", "torchvision")

VGG_FIELDS = {
    "weights": field(
        "", '"": the published ones of model.variant; "random"; or a file', names="frozen"
    ),
    "model": {
        "variant": field(
            "keras",
            "of the published weights",
            one_of=PUBLISHED_VARIANTS,
            only_with=one_of("weights", "", "random"),
        ),
        "depth": field(19, "VGG-16 or VGG-19", at_least=min(vgg.BLOCKS), at_most=max(vgg.BLOCKS)),
        "pool": field("max", one_of=vgg.POOLS),
        "padding": field("", '"": that of the weights', one_of=("", *vgg.PADDINGS)),
    },
}


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenVgg:
    """A VGG and its weights.

    Attributes:
      network: which activations it returns.
      params: of the network, NumPy arrays; None for random ones, which `init` draws.
      description: of the weights, with their SHA-256, for records.
    """

    network: VGG
    params: Params | None = None
    description: str = "random"

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the five blocks."""
        return self.network.widths or VARIANTS[self.network.variant].widths

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns the parameters, to be called inside a compiled function."""
        if self.params is None:
            return self.network.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        return from_host(self.params)

    def activations(
        self, params: Params, images: Float[AnyArray, "b h w 3"]
    ) -> dict[str, Float[Array, "b _ _ _"]]:
        """Returns the float32 activations of RGB images in [0, 1], by layer."""
        found = self.network.apply({"params": params}, images)
        return {name: x.astype(jnp.float32) for name, x in found.items()}


def load_frozen_vgg(
    config: ConfigDict, layers: tuple[str, ...], weights: str | None = None
) -> FrozenVgg:
    """Returns the VGG of a config, with weights that reach the deepest of `layers`.

    Args:
      config: with `VGG_FIELDS`.
      layers: names of activations, of ours or Keras's.
      weights: replaces config.weights.

    Raises:
      UserError: unknown layers, or weights that cannot be read or belong to another network.
    """
    model, weights = config.model, config.weights if weights is None else weights
    variant, depth, params, description, widths = model.variant, model.depth, None, "random", ()
    check_depth(depth)
    if weights != "random":
        check_layers(layers, max(vgg.BLOCKS))
        try:
            loaded = load_vgg(layers, weights or None, variant, depth)
        except UserError as error:
            raise UserError(f"{error}; --config.weights=random runs without any") from error
        variant, depth, params = loaded.variant, loaded.depth, loaded.params
        widths = loaded.widths
        description = f"{Path(loaded.path).name} {loaded.sha256}"
    check_layers(layers, depth)
    dtype = jnp.dtype(config.compute_dtype)
    network = VGG(layers, depth, variant, model.pool, model.padding, widths, dtype)
    return FrozenVgg(network, params, description)


def from_host(tree: Params) -> Params:
    """Returns a host's arrays inside a compiled function.

    As constants of the function they would be compiled with it and stored in the cache of compiled
    programs.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    return jax.pure_callback(lambda: tree, shapes)


def check_pool(config: ConfigDict, layers: Iterable[str]) -> None:
    """Raises a UserError for a kind of pooling that none of `layers` comes after."""
    model, default = config.model, VGG_FIELDS["model"]["pool"].default
    kinds = [kind for kind, *_ in vgg.path_to(layers, max(vgg.BLOCKS))]
    what = f"{default!r}: no pooling comes before the requested layers"
    require("pool" in kinds or model.pool == default, "model.pool", model.pool, what)


def check_depth(depth: int) -> None:
    """Raises a UserError for a VGG that does not exist."""
    what = " or ".join(map(str, vgg.BLOCKS))
    require(depth in vgg.BLOCKS, "model.depth", depth, what)


def check_layers(layers: Iterable[str], depth: int) -> None:
    """Raises a UserError for the first name that is not a layer of VGG-`depth`."""
    for name in layers:
        try:
            vgg.canonical(name, depth)
        except ValueError as error:
            raise UserError(f"config.model: {error}, such as block4_conv2 or relu4_2") from error
