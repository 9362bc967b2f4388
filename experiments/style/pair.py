"""The content picture, the style pictures, and the file that the result is written to."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from genjax.data.picture import picture_path
from genjax.errors import UserError
from genjax.models import vgg
from genjax.plots import check_finite
from genjax.runner.fields import field, is_set, require
from genjax.runner.terminal import say
from genjax.style import pictures
from genjax.style.color import COLORS, keep_color
from genjax.typing import AnyArray, Float

PAIR_FIELDS = {
    "content": field("china", "a path, or one of genjax.data.picture.EMBEDDED", names="picture"),
    "style": field("flower", "the same", names="picture"),
    "more_styles": field((), "further style pictures, blended", items=str, names="picture"),
    "style_shares": field(
        (),
        "of all styles; (): equal",
        items=float,
        at_least=0,
        only_with=is_set("more_styles"),
    ),
    "color": field(
        "style", "of the result: of the style, or of the content in two ways", one_of=COLORS
    ),
    "output": {"kind": field("png", "of the result's file", one_of=pictures.KINDS)},
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A content and a style picture, and how the result is saved.

    Attributes:
      content, style: paths, or names of embedded pictures.
      color: "style"; "luminance" for the content's colours in the result; "histogram" for those in
        the style picture.
      kind: of the result's file, a name in `genjax.style.pictures.KINDS`.
    """

    content: str = "china"
    style: str = "flower"
    color: str = "style"
    kind: str = "png"

    @property
    def name(self) -> str:
        """The result's file name without suffix."""
        return "_".join(picture_path(name).stem for name in (self.content, self.style))

    def finish(self, image: Float[AnyArray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
        """Returns the picture as it is saved: in [0, 1], with the content's colours if wanted.

        Raises:
          PixelsNotFinite: the picture has NaN or infinity.
        """
        check_finite(image, self.name)
        image = np.clip(np.asarray(image, np.float32), 0, 1)
        if self.color == "luminance":
            size = pictures.Size(*image.shape[:2])
            image = keep_color(image, pictures.read_rgb(self.content, "content", size))
        return image

    def save(
        self, folder: str | Path, image: Float[np.ndarray, "h w 3"], provenance: dict[str, Any]
    ) -> Path:
        """Writes a finished picture with the content's transparency to folder/samples/."""
        size = pictures.Size(*image.shape[:2])
        alpha = pictures.read_alpha(self.content, "content", size)
        path = Path(folder) / "samples" / self.name
        path = pictures.save_picture(
            path,
            image,
            alpha,
            self.kind,
            {"content": self.content, "style": self.style, **provenance},
        )
        say(f"picture saved to {path}")
        return path


def pair_settings(config: ConfigDict) -> dict[str, str]:
    """Returns the values of a `Pair`'s fields in a config."""
    return {
        "content": config.content,
        "style": config.style,
        "color": config.color,
        "kind": config.output.kind,
    }


def style_shares(config: ConfigDict) -> tuple[float, ...]:
    """Returns the shares of all styles, which sum to 1.

    Raises:
      UserError: there are not as many as styles, or all are 0.
    """
    count, shares = 1 + len(config.more_styles), config.style_shares
    fits = not shares or len(shares) == count and sum(shares) > 0
    require(fits, "style_shares", shares, f"empty, or {count} numbers of at least 0, not all 0")
    shares = shares or (1.0,) * count
    return tuple(share / sum(shares) for share in shares)


def scaled_size(
    name: str, key: str, long_side: int, layers: Sequence[str], depth: int
) -> pictures.Size:
    """Returns the size of a picture whose longer side is scaled to `long_side`.

    Args:
      name: a path, or the name of an embedded picture.
      key: the config field that names it, for messages.
      long_side: pixels; 0: its own.
      layers, depth: of the VGG that looks at it.

    Raises:
      UserError: the picture cannot be read, or is too small for the layers.
    """
    found = pictures.size_of(name, key)
    pictures.check_size(found, key)
    size = found.scaled_to(long_side or max(found.height, found.width))
    least = 2 * vgg.reach(layers, depth)[0]
    if min(size.height, size.width) < least:
        raise UserError(
            f"config.{key}: a picture of {found.width}x{found.height} pixels is {size.width}x"
            f"{size.height} with a longer side of {max(size.height, size.width)}, but the "
            f"requested layers need {least} pixels a side; choose another picture, or a larger size"
        )
    return size
