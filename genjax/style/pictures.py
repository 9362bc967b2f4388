"""Pictures of people: read with their transparency at any size, written in any kind."""

import dataclasses
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from genjax.data.images import BadImage, decoded
from genjax.data.picture import picture_path
from genjax.errors import UserError
from genjax.files import whole_file
from genjax.plots import SOURCE_TYPE, XMP, png_texts, to_uint8

# What the result can be written as: config.output.kind.
KINDS = {"png": ".png", "jpeg": ".jpg", "png16": ".png"}
_JPEG_QUALITY = 95
MIN_SIDE = 16  # of a picture, before it is resized


@dataclasses.dataclass(frozen=True)
class Size:
    """Height and width of a picture."""

    height: int
    width: int

    def scaled_to(self, long_side):
        """The size of the same shape whose longer side is `long_side`."""
        factor = long_side / max(self.height, self.width)
        return Size(*(max(1, round(n * factor)) for n in (self.height, self.width)))


def size_of(name, key):
    """The size of a picture as it is seen, upright; `key` of the config names it in messages."""
    return _decoded(name, key, lambda image: Size(image.height, image.width))


def check_size(found, key):
    """Refuses a picture that shows nothing; UserError."""
    if min(found.height, found.width) < MIN_SIDE:
        raise UserError(
            f"config.{key}: a picture of {found.width}x{found.height} pixels shows nothing; it "
            f"needs {MIN_SIDE} pixels a side at least"
        )


def read_rgb(name, key, size):
    """A picture at a `Size`, float32 [H, W, 3] in [0, 1]; transparent pixels lie over white."""

    def use(image):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        return image.resize((size.width, size.height), Image.Resampling.BICUBIC)

    return np.asarray(_decoded(name, key, use), np.float32) / 255


def read_alpha(name, key, size):
    """Its opacity, float32 [H, W] in [0, 1]; None where it is opaque everywhere."""

    def use(image):
        if not image.has_transparency_data:
            return None
        alpha = image.convert("RGBA").getchannel("A")
        return alpha.resize((size.width, size.height), Image.Resampling.BICUBIC)

    alpha = _decoded(name, key, use)
    alpha = None if alpha is None else np.asarray(alpha, np.float32) / 255
    return None if alpha is None or alpha.min() == 1 else alpha


def read_grey(name, key, size):
    """Its lightness, float32 [H, W] in [0, 1]: a mask."""
    use = lambda image: image.convert("L").resize((size.width, size.height))
    return np.asarray(_decoded(name, key, use), np.float32) / 255


def _decoded(name, key, use):
    try:
        return decoded(picture_path(name), use)
    except BadImage as error:
        reason = f"cannot read the picture {error.path}: {error.reason}"
        raise UserError(f"config.{key}: {reason}") from error
    except UserError as error:
        raise UserError(f"config.{key}: {error}") from error


def save_picture(path, image, alpha, kind, provenance):
    """Writes a picture, marked as synthetic.

    Args:
      path: where to, without suffix.
      image: float [H, W, 3] in [0, 1].
      alpha: float [H, W] in [0, 1] or None; a JPEG, which has none, is laid over white.
      kind: a name in `KINDS`: 8 bits a channel, or 16.
      provenance: {name: value}, what it takes to make it again.

    Returns:
      The path it was written to.
    """
    path = Path(f"{path}{KINDS[kind]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "jpeg" and alpha is not None:
        image = image * alpha[..., None] + 1 - alpha[..., None]
    elif alpha is not None:
        image = np.concatenate([image, alpha[..., None]], axis=-1)
    with whole_file(path) as partial, open(partial, "wb") as file:
        if kind == "jpeg":
            told = json.dumps({"Software": "genjax", "Source": SOURCE_TYPE, **provenance})
            Image.fromarray(to_uint8(image)).save(
                file, "jpeg", quality=_JPEG_QUALITY, xmp=XMP.encode(), comment=told.encode()
            )
        elif kind == "png":
            Image.fromarray(to_uint8(image)).save(file, "png", pnginfo=png_texts(provenance))
        else:
            file.write(_png16(image, png_texts(provenance)))
    return path


def _png16(image, texts):
    """Bytes of a PNG of 16 bits a channel, which Pillow cannot write (W3C PNG, sections 5, 9)."""
    wide = (np.clip(image, 0, 1) * 65535 + 0.5).astype(">u2")
    height, width, channels = wide.shape
    color = {3: 2, 4: 6}[channels]
    rows = wide.reshape(height, -1).view(np.uint8)
    # Filter 1: less the pixel to the left, byte by byte, modulo 256.
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
