"""What the ways of style transfer without optimisation share: pictures in, stylised picture out."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.style.frozen_vgg import VGG_FIELDS
from experiments.style.pair import PAIR_FIELDS, Pair, pair_settings, scaled_size, style_shares
from genjax.errors import UserError
from genjax.files import user_path
from genjax.models.stylizers import Decoder
from genjax.runner.config import FIELDS as SHARED
from genjax.runner.fields import field, merged, require, unused
from genjax.runner.terminal import say
from genjax.style import pictures
from genjax.style.color import match_color
from genjax.typing import Array, Float, Params
from genjax.weights.vgg import load_decoder

STYLIZE_FIELDS = merged(
    PAIR_FIELDS,
    VGG_FIELDS,
    {
        "sample": unused(SHARED["sample"]),  # --mode=sample draws the one picture
        "strength": field(1.0, "of the style; 0: the content's own", at_least=0, at_most=1),
        "size": field(512, "longer side of the result; 0: the content's own", at_least=0),
        "style_size": field(512, "longer side of the styles; 0: their own", at_least=0),
    },
)

# What may differ from the config of a trained stylizer when it draws other pictures.
MAY_DIFFER = ("eval.", "content", "style", "more_styles", "style_shares", "strength", "size")
MAY_DIFFER += ("color", "style_size", "output.")


def check_pixels(config: ConfigDict) -> None:
    """Raises a UserError for pixels that are not those of pictures."""
    pixels = config.data.pixels
    require(pixels == "unit", "data.pixels", pixels, "unit: pictures are in [0, 1]")


@dataclasses.dataclass(frozen=True)
class Stylization(Pair):
    """A picture to be drawn by a stylizer.

    Attributes:
      more_styles: further style pictures.
      shares: of all styles; they sum to 1.
      strength: of the style, in [0, 1]; 0: the content's own features.
      size, style_size: longer sides of the result and of the styles; 0: their own.
    """

    more_styles: tuple[str, ...] = ()
    shares: tuple[float, ...] = (1.0,)
    strength: float = 1.0
    size: int = 512
    style_size: int = 512

    @classmethod
    def of(cls, config: ConfigDict) -> "Stylization":
        """Returns the stylization that a config describes.

        Raises:
          UserError: shares that do not fit the styles.
        """
        names = ("more_styles", "strength", "size", "style_size")
        own = {name: config[name] for name in names}
        return cls(**pair_settings(config), shares=style_shares(config), **own)

    def read(
        self, layers: Sequence[str], depth: int = 19
    ) -> tuple[Float[np.ndarray, "h w 3"], list[Float[np.ndarray, "_ _ 3"]]]:
        """Reads content and styles at their sizes, in [0, 1].

        Args:
          layers, depth: of the VGG that looks at them.

        Raises:
          UserError: a picture cannot be read, or is too small for the layers.
        """

        def read(name, key, long_side):
            return pictures.read_rgb(name, key, scaled_size(name, key, long_side, layers, depth))

        content = read(self.content, "content", self.size)
        names = (self.style, *self.more_styles)
        styles = [read(name, "style", self.style_size) for name in names]
        if self.color == "histogram":
            styles = [match_color(style, content) for style in styles]
        return content, styles

    def draw(
        self,
        folder: str | Path,
        content: Float[np.ndarray, "h w 3"],
        stylize: Callable[[Array], Array],
        stride: int,
        provenance: dict[str, Any],
    ) -> dict[str, Any]:
        """Stylises and saves the content picture.

        Args:
          folder: the picture is saved to folder/samples/.
          content: in [0, 1].
          stylize: images [1, H', W', 3] -> the same, stylised; H' and W' are multiples of `stride`.
          stride: of the network.
          provenance: for the file and the report.

        Returns:
          For the report: {"content", "style", **provenance, "picture": its path, "seconds_first":
          with compilation, "seconds": without}.
        """
        height, width = content.shape[:2]
        edge = [(0, -n % stride) for n in (height, width)]
        padded = jnp.asarray(np.pad(content, (*edge, (0, 0)), mode="reflect")[None])
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            image = jax.block_until_ready(stylize(padded))
            seconds.append(time.perf_counter() - start)
        path = self.save(folder, self.finish(image[0, :height, :width]), provenance)
        say(f"drawn in {seconds[1]:.2f} s")
        return {
            "content": self.content,
            "style": self.style,
            **provenance,
            "seconds_first": seconds[0],
            "seconds": seconds[1],
            "picture": str(path),
        }


def load_decoder_of(path: str, decoder: Decoder) -> tuple[Params, str]:
    """Reads a decoder's parameters.

    Args:
      path: of a file that `genjax.weights.vgg.load_decoder` reads.
      decoder: the network that they have to fit.

    Returns:
      (parameters as NumPy arrays, SHA-256 of the file).

    Raises:
      UserError: the file cannot be read, or its decoder belongs to another encoder.
    """
    layers, sha256 = load_decoder(user_path(path, "the decoder"))
    name = decoder.layer.replace("relu", "conv")
    channels = decoder.widths[int(name[4]) - 1]
    if layers[0][0] != name or layers[0][1].shape[2] != channels:
        raise UserError(
            f"the decoder {path} starts with {layers[0][0]} of {layers[0][1].shape[2]} channels, "
            f"not with {name} of {channels}: it belongs to another encoder"
        )
    return {name: {"kernel": kernel, "bias": bias} for name, kernel, bias in layers}, sha256
