"""Whitening and colouring transforms (Li et al. 2017): any style, by decoders trained on none.

From the deepest level to the first: the features of the picture get mean and covariance of the
style's, and a decoder turns them into the picture that the next level starts from. There is nothing
to train; `launch.py` draws the picture.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.style.frozen_vgg import FrozenVgg, load_frozen_vgg
from experiments.style.stylize import STYLIZE_FIELDS, Stylization, load_decoder_of
from genjax import files
from genjax.data.transforms import clip_to_unit
from genjax.errors import UserError
from genjax.models.stylizers import Decoder
from genjax.models.vgg import reach
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.config import check_config, make_config
from genjax.runner.fields import field, merged, one_of, other_than, unused
from genjax.runner.terminal import say
from genjax.style.features import mixture, whiten_and_color
from genjax.train.parallel import in_main
from genjax.typing import Array, Float, Params, Shape

# There is nothing to train: a seed for random weights, devices and the type that they compute in.
_USED = ("experiment", "seed", "num_seeds", "parallel", "num_devices", "compute_dtype")
_USED += ("requeue_exit_code",)

FIELDS = merged(
    unused(SHARED, *(key for key in SHARED if key not in _USED)),
    STYLIZE_FIELDS,
    {
        "seed": dataclasses.replace(SHARED["seed"], only_with=(one_of("weights", "random"),)),
        "weights": field("encoder{}.npz", 'files, {} stands for the level; or "random"'),
        "decoder": field(
            "decoder{}.npz",
            "files, {} stands for the level",
            only_with=other_than("weights", "random"),
        ),
        "levels": field(
            (5, 4, 3, 2, 1), "blocks of VGG, in their order", at_least=1, at_most=5, nonempty=True
        ),
        "strength": dataclasses.replace(STYLIZE_FIELDS["strength"], default=0.6),
    },
)


def default_config() -> ConfigDict:
    """Returns the config of this family, every field at its default."""
    return make_config("wct", FIELDS)


def smoke(config: ConfigDict) -> dict[str, Any]:
    """Returns what makes a picture of this family quick to draw."""
    return {"weights": "random", "levels": (2, 1), "size": 48, "style_size": 48}


def build(config: ConfigDict, image_shape: Shape, class_names: tuple[str, ...] = ()) -> NoReturn:
    """Raises the UserError that there is no training."""
    raise UserError("config.experiment='wct' has no training: --mode=train draws the picture")


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """Encoder and decoder of one level.

    Attributes:
      encoder: VGG to one layer.
      decoder: from features of that layer to a picture.
      decoder_params: of the decoder.
    """

    encoder: FrozenVgg
    decoder: Decoder
    decoder_params: Params

    def stylize(
        self,
        vgg: Params,
        params: Params,
        image: Float[Array, "1 _ _ 3"],
        styles: list[Float[Array, "1 _ _ 3"]],
        strength: float,
        shares: tuple[float, ...],
    ) -> Float[Array, "1 _ _ 3"]:
        """Returns a picture with the styles' mean and covariance at this level, in [0, 1]."""
        features = lambda x: self.encoder.activations(vgg, x)[self.decoder.layer]
        content = features(image)
        colored = [whiten_and_color(content[0], features(style)[0])[None] for style in styles]
        mixed = mixture(content, colored, strength, shares)
        return clip_to_unit(self.decoder.apply({"params": params}, mixed))


@dataclasses.dataclass(frozen=True, eq=False)
class Wct:
    """Whitening and colouring over several levels.

    Attributes:
      levels: in the order that they are applied.
      stylization: the picture to be drawn.
    """

    levels: tuple[Level, ...]
    stylization: Stylization = Stylization(strength=0.6)

    @functools.cached_property
    def _stylize_jit(self):
        """A program for each level."""
        strength, shares = self.stylization.strength, self.stylization.shares
        settings = {"strength": strength, "shares": shares}
        return [jax.jit(functools.partial(level.stylize, **settings)) for level in self.levels]

    def stylize(
        self, image: Float[Array, "1 _ _ 3"], styles: list[Float[Array, "1 _ _ 3"]]
    ) -> Float[Array, "1 _ _ 3"]:
        """Returns an image in a mixture of styles, in the stylization's strength and shares."""
        for level, stylize in zip(self.levels, self._stylize_jit, strict=True):
            image = stylize(level.encoder.params, level.decoder_params, image, styles)
        return image

    def draw(self, folder: str | Path) -> dict[str, Any]:
        """Draws and saves the picture of the stylization; returns its values for a report."""
        layers = [level.decoder.layer for level in self.levels]
        content, styles = self.stylization.read(layers)
        styles = [jnp.asarray(style)[None] for style in styles]
        stylize = lambda image: self.stylize(image, styles)
        provenance = {level.decoder.layer: level.encoder.description for level in self.levels}
        return self.stylization.draw(folder, content, stylize, reach(layers)[0], provenance)


def load_levels(config: ConfigDict) -> Wct:
    """Returns the encoders and decoders of a config.

    Raises:
      UserError: files that cannot be read, or do not belong together.
    """
    stylization = Stylization.of(config)
    levels = []
    for level in config.levels:
        layer = f"relu{level}_1"
        path = config.weights.replace("{}", str(level))
        encoder = load_frozen_vgg(config, (layer,), path)
        decoder = Decoder(layer, encoder.widths)
        if encoder.params is None:
            key = jax.random.key(config.seed)
            encoder = dataclasses.replace(encoder, params=jax.jit(encoder.init)(key))
            features = jnp.zeros((1, 2, 2, encoder.widths[level - 1]))
            params = jax.jit(decoder.init)(key, features)["params"]
        else:
            params, _ = load_decoder_of(config.decoder.replace("{}", str(level)), decoder)
        levels.append(Level(encoder, decoder, params))
    return Wct(tuple(levels), stylization)


def train(config: ConfigDict, workdir: Path, source: dict[str, str], train_one: Any) -> dict:
    """Draws the picture; returns the report."""
    del train_one  # there is nothing to train
    check_config(config, FIELDS, num_devices=1)
    wct = load_levels(config)
    report = dict(source)

    def draw():
        report.update(wct.draw(workdir))
        files.write_json(workdir / "report.json", report)

    in_main(draw)
    say(f"results saved to {workdir}")
    return report


def sample(config: ConfigDict, workdir: Path, source: dict[str, str], step: str) -> None:
    """Draws the picture, as `train` does."""
    train(config, workdir, source, None)
