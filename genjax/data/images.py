"""Decodes a picture of any kind into a uint8 array of the shape that a run requests."""

import contextlib
import errno
import logging
import os
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from genjax.errors import UserError, one_line
from genjax.files import lfs_hint
from genjax.shapes import Num, Shape, UInt8

Result = TypeVar("Result")

# Antialiased when shrinking, smooth when enlarging. Part of the cache key: change it and every
# cached array is made again.
RESIZE_FILTER = "bicubic"

# A quarter of a gigabyte to decode an RGB picture, one gigabyte for one with alpha. A file of 150
# kilobytes can hold any number of pixels, so its header is checked before anything is decoded.
MAX_PIXELS = 2**26

# What Pillow may take a file for, whatever its suffix. Not EPS: Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")

# TIFF 6.0, section 8. A photometric interpretation of 0 means that 0 is white.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_PLANAR, _SAMPLE_FORMAT, _SIGNED = 284, 339, 2

# Errors of the file itself. All others (too many open files, a failing disk) are of the machine at
# the moment; leaving a picture out because of them would make a dataset irreproducible.
_ERRORS_OF_THE_FILE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP)

# Pillow also raises an exception for everything that makes a picture unreadable.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class BadImage(UserError):
    """A picture that cannot be read.

    Attributes:
      path: its file.
      reason: why it cannot be read.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"cannot read the picture {self.path}: {self.reason}; repair or remove it, "
            "or leave out all such pictures with config.data.bad_images=skip"
        )


def read_image(path: str | os.PathLike, image_shape: Shape) -> UInt8[np.ndarray, "h w c"]:
    """Reads a picture and fits it to `image_shape` (see `fit_image`).

    Of several frames it takes the first, turned the way EXIF says. Colour profiles are ignored.

    Raises:
      BadImage: the file is not a picture, is damaged, has more than MAX_PIXELS, or may not be read.
      UserError: the machine failed, not the picture.
    """
    return decoded(path, lambda image: fit_image(image, image_shape))


def decoded(path: str | os.PathLike, use: Callable[[Image.Image], Result]) -> Result:
    """Decodes a picture and returns `use(image)`.

    Args:
      path: the file.
      use: called with a PIL image, upright, of 8 bits a channel, whose file is still open.

    Raises:
      BadImage, UserError: as `read_image`.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise ValueError("it is not a file")
        if status.st_size == 0:
            raise ValueError("the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"its header says {image.width}x{image.height} pixels, more than {MAX_PIXELS}"
                )
            image.load()
            return use(_eight_bit(image))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise almost anything
        if isinstance(error, OSError) and error.errno not in (None, *_ERRORS_OF_THE_FILE):
            raise UserError(
                f"cannot read {one_line(path)}: {error.strerror}; the file may be good: check the "
                "machine and run again"
            ) from error
        raise BadImage(one_line(path), lfs_hint(path) or _reason(error)) from error


def fit_image(
    image: Image.Image | Num[np.ndarray, "h0 w0 c0"], image_shape: Sequence[int]
) -> UInt8[np.ndarray, "h w c"]:
    """Scales `image` until it covers `image_shape`, then crops the centre.

    Args:
      image: a PIL image, or a uint8 or uint16 array [h, w, 1 or 3].
      image_shape: (height, width, channels), channels 1 (grey) or 3 (RGB).

    Returns:
      The image with `image_shape`. Transparent pixels are laid over white.
    """
    height, width, channels = image_shape
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint16:
            image = _scaled(image)
        if image.shape == tuple(image_shape):
            return image
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode not in ("1", "L", "RGB"):  # Pillow has no way from every mode to grey
        image = image.convert("RGB")
    if image.mode != ("L" if channels == 1 else "RGB"):
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Turns a decoded picture upright and scales 16-bit grey to 0..255.

    Pillow would clip it at 255. Of 16-bit colour it keeps the high bytes.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    _check_samples(tags)
    if image.mode.startswith("I;16") or image.mode == "I" and image.format in ("PNG", "PPM"):
        white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
        clear = image.info.get("transparency")
        wide = np.asarray(_upright(image))
        grey = _scaled(wide, white)
        image = Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)
        if clear is not None:
            image.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
        return image
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel do not say which value is white; make it 8 or 16 bits")
    return _upright(image)


def _check_samples(tags: Mapping[int, Any]) -> None:
    """Raises a ValueError for kinds of TIFF that Pillow decodes to wrong pixels."""
    if set(np.ravel(tags.get(_SAMPLE_FORMAT, 1))) & {_SIGNED}:
        raise ValueError("its channels are signed, which does not say which value is black")
    if tags.get(_PLANAR) == 2 and max(np.ravel(tags.get(_BITS_PER_SAMPLE, 8))) > 8:
        raise ValueError("16 bits a channel in separate planes are not read; make it 8 bits")


def _scaled(wide: np.ndarray, white: int = 65535) -> np.ndarray:
    """Scales 0..white to 0..255, rounded."""
    return ((wide.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    # Garbage in the metadata does not make the pixels wrong.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture in one of the formats " + ", ".join(FORMATS)
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror
    return one_line(error) or type(error).__name__
