"""Picture files of users: read at any size, with transparency, and written in any format."""

import dataclasses
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genjax.data.images import BadImage, decoded
from genjax.data.picture import picture_path
from genjax.errors import UserError
from genjax.files import whole_file
from genjax.plots import SOURCE_TYPE, XMP, check_finite, png_texts, to_uint8
from genjax.typing import Float

# config.output.kind, the format of the result -> its suffix.
KINDS = {"png": ".png", "jpeg": ".jpg", "png16": ".png"}
_JPEG_QUALITY = 95
MIN_SIDE = 16  # of a picture, before it is resized


@dataclasses.dataclass(frozen=True)
class Size:
    """Height and width of a picture."""

    height: int
    width: int

    def scaled_to(self, long_side: int) -> "Size":
        """Returns the size with the same aspect ratio whose longer side is `long_side`."""
        factor = long_side / max(self.height, self.width)
        return Size(*(max(1, round(n * factor)) for n in (self.height, self.width)))


# --- Reading --------------------------------------------------------------------------------------
# In all these functions `name` is a path or an embedded picture, and `key` the field of the config
# that names it, for error messages. They raise UserError where the picture cannot be read.


def size_of(name: str | Path, key: str) -> Size:
    """Returns the size of a picture, after turning it upright."""
    return _decoded(name, key, lambda image: Size(image.height, image.width))


def check_size(size: Size, key: str) -> None:
    """Raises UserError for a picture that is too small to show anything."""
    if min(size.height, size.width) < MIN_SIDE:
        raise UserError(
            f"config.{key}: a picture of {size.width}x{size.height} pixels shows nothing; each "
            f"side needs at least {MIN_SIDE} pixels"
        )


def read_rgb(name: str | Path, key: str, size: Size) -> Float[np.ndarray, "h w 3"]:
    """Reads a picture and resizes it; in [0, 1], transparent pixels over white."""

    def use(image):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        return image.resize((size.width, size.height), Image.Resampling.BICUBIC)

    return np.asarray(_decoded(name, key, use), np.float32) / 255


def read_alpha(name: str | Path, key: str, size: Size) -> Float[np.ndarray, "h w"] | None:
    """Reads the opacity of a picture and resizes it; in [0, 1], None if all pixels are opaque."""

    def use(image):
        if not image.has_transparency_data:
            return None
        alpha = image.convert("RGBA").getchannel("A")
        return alpha.resize((size.width, size.height), Image.Resampling.BICUBIC)

    alpha = _decoded(name, key, use)
    alpha = None if alpha is None else np.asarray(alpha, np.float32) / 255
    return None if alpha is None or alpha.min() == 1 else alpha


def read_grey(name: str | Path, key: str, size: Size) -> Float[np.ndarray, "h w"]:
    """Reads the lightness of a picture, such as a mask, and resizes it; in [0, 1].

    Transparent pixels are laid over black: what is transparent is in no region.
    """

    def use(image):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return image.convert("L").resize((size.width, size.height))

    return np.asarray(_decoded(name, key, use), np.float32) / 255


def _decoded(name: str | Path, key: str, use: Callable[[Image.Image], Any]) -> Any:
    """Returns `use(image)` of the decoded picture; errors name the field of the config."""
    try:
        return decoded(picture_path(str(name)), use)
    except BadImage as error:
        reason = f"cannot read the picture {error.path}: {error.reason}"
        raise UserError(f"config.{key}: {reason}") from error
    except UserError as error:
        raise UserError(f"config.{key}: {error}") from error


# --- Writing --------------------------------------------------------------------------------------


def save_picture(
    path: str | Path,
    image: Float[np.ndarray, "h w 3"],
    alpha: Float[np.ndarray, "h w"] | None,
    kind: str,
    provenance: dict[str, Any],
) -> Path:
    """Writes a picture, marked as synthetic.

    Args:
      path: without suffix.
      image: in [0, 1].
      alpha: opacity in [0, 1]; a JPEG, which has no transparency, is laid over white.
      kind: a name in `KINDS`; png16 has 16 bits per channel.
      provenance: {name: value}, everything needed to generate the picture again.

    Returns:
      The path of the file.

    Raises:
      PixelsNotFinite: the picture has NaN or infinity.
    """
    path = Path(f"{path}{KINDS[kind]}")
    check_finite(image, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "jpeg" and alpha is not None:
        image = image * alpha[..., None] + 1 - alpha[..., None]
    elif alpha is not None:
        image = np.concatenate([image, alpha[..., None]], axis=-1)
    with whole_file(path) as partial, open(partial, "wb") as file:
        if kind == "jpeg":
            comment = json.dumps({"Software": "genjax", "Source": SOURCE_TYPE, **provenance})
            Image.fromarray(to_uint8(image)).save(
                file, "jpeg", quality=_JPEG_QUALITY, xmp=XMP.encode(), comment=comment.encode()
            )
        elif kind == "png":
            Image.fromarray(to_uint8(image)).save(file, "png", pnginfo=png_texts(provenance))
        else:
            file.write(_png16(image, png_texts(provenance)))
    return path


def _png16(image: Float[np.ndarray, "h w c"], texts: PngInfo) -> bytes:
    """Encodes a PNG of 16 bits per channel, which Pillow cannot (W3C PNG, sections 5 and 9)."""
    wide = (np.clip(image, 0, 1) * 65535 + 0.5).astype(">u2")
    height, width, channels = wide.shape
    color = {3: 2, 4: 6}[channels]
    rows = wide.reshape(height, -1).view(np.uint8)
    # Filter 1: each byte minus that of the pixel to the left, modulo 256.
    filtered = rows.copy()
    filtered[:, 2 * channels :] -= rows[:, : -2 * channels]
    lines = np.concatenate([np.ones((height, 1), np.uint8), filtered], axis=1)
    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)

    def chunk(kind, data):
        out.write(struct.pack(">I", len(data)) + kind + data)
        out.write(struct.pack(">I", zlib.crc32(kind + data)))

    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))
    for kind, data, *_ in texts.chunks:
        chunk(kind, data)
    chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
    chunk(b"IEND", b"")
    return out.getvalue()
