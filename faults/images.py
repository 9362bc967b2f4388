"""Reads one picture of each kind that folders may hold, under both policies.

Every kind lies in a folder of its own between two good pictures. Those that decode are compared
with pixels computed here without the decoder; the others must be refused with their path
(config.data.bad_images=fail), or left out and listed (skip), before they take memory.

python -m faults.images        exit code 0 if every outcome is the expected one
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError

SHAPE = (8, 8, 3)
NOBODY = 65534  # the user without rights
POLICIES = ("fail", "skip")
MEMORY_LIMIT = 64  # MiB; decoding the bomb of zeros would take 823

Encoded = tuple[bytes, np.ndarray | None]  # a file's bytes, its pixels [8, 8, 3] if it decodes

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
OTHER = 255 - COLOUR
GREY = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
# No two quadrants alike, so that every way of turning it shows.
QUADRANTS = np.kron(
    np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8),
    np.ones((4, 4, 1), np.uint8),
)


# ---- Files of each kind, and their pixels ----


def encoded(
    pixels: np.ndarray | Image.Image, kind: str = "PNG", mode: str | None = None, **options: Any
) -> bytes:
    """Encodes pixels as Pillow does.

    Args:
      pixels: of an image.
      kind: of the file.
      mode: that the image is converted to.
      options: of Pillow's `save`.
    """
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    data: Iterable[bytes],
    chunks: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Builds a PNG from its parts (W3C PNG, sections 5 and 11).

    Args:
      width, height, depth, colour: of the header.
      data: filtered scanlines.
      chunks: (name, content) of further ones.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    deflate = zlib.compressobj(9)  # row by row: building a bomb must take no memory either
    body = b"".join([deflate.compress(row) for row in data] + [deflate.flush()])
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def scanlines(rows: np.ndarray) -> Iterator[bytes]:
    """Returns the rows of an array [H, ...], each with the filter type "none" before it."""
    return (b"\0" + row.tobytes() for row in rows)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns alpha * colour + (1 - alpha) * white, of [H, W, 3] and [H, W]."""
    alpha = alpha[..., None] / 255
    return np.rint(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """Returns a grey image [H, W] as [H, W, 3]."""
    return np.repeat(grey[..., None], 3, axis=-1)


def sixteen_bits() -> Encoded:
    """Returns a grey PNG of 16 bits."""
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    data = png(8, 8, 16, 0, scanlines(wide.astype(">u2")))
    return data, grey_to_rgb(np.rint(wide / 257).astype(np.uint8))


def sixteen_bits_inverted() -> Encoded:
    """Returns a TIFF with PhotometricInterpretation 0: 65535 is black."""
    wide = np.linspace(0, 65535, 64).astype("<u2").reshape(8, 8)
    tags = [(256, 8), (257, 8), (258, 16), (259, 1), (262, 0), (273, 8), (277, 1), (278, 8)]
    tags.append((279, 128))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    data = b"II*\0" + struct.pack("<I", 8 + 128) + wide.tobytes() + directory
    return data, grey_to_rgb(np.rint((65535.0 - wide) / 257).astype(np.uint8))


def palette_with_alpha() -> Encoded:
    """Returns a PNG of a palette, each colour of which has its own alpha."""
    index = np.arange(64, dtype=np.uint8).reshape(8, 8)
    palette = RNG.integers(0, 256, (64, 3), dtype=np.uint8)
    alpha = np.linspace(0, 255, 64).astype(np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alpha.tobytes())]
    data = png(8, 8, 8, 3, scanlines(index), chunks)
    return data, over_white(palette[index], alpha[index])


def cmyk() -> Encoded:
    """Returns a TIFF of four inks."""
    ink = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    light = 255.0 - ink
    rgb = np.rint(light[..., :3] * light[..., 3:] / 255).astype(np.uint8)
    return encoded(Image.frombytes("CMYK", (8, 8), ink.tobytes()), "TIFF"), rgb


def exif_rotated() -> Encoded:
    """Returns a PNG with the orientation of a camera that was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    return encoded(QUADRANTS, exif=exif.tobytes()), np.rot90(QUADRANTS, -1)


def animated(kind: str, **options: Any) -> Encoded:
    """Returns a file of two frames, of which the first one counts."""
    frames = [Image.fromarray(pixels) for pixels in (QUADRANTS, 255 - QUADRANTS)]
    options |= {"save_all": True, "append_images": frames[1:], "duration": 100}
    return encoded(frames[0], kind, **options), QUADRANTS


def truncated(data: bytes) -> Encoded:
    """Returns the first half of a file."""
    return data[: len(data) // 2], None


def large(kind: str) -> bytes:
    """Encodes an image large enough to be truncated."""
    return encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)


def bomb_of_zeros() -> Encoded:
    """Returns 12000x12000 grey zeros, valid: 144 megapixels in 140 kB."""
    side = 12000
    return png(side, side, 8, 0, (bytes(1 + side) for _ in range(side))), None


def sixteen_bit_planes() -> Encoded:
    """A TIFF of 16-bit red, green and blue, one after the other (TIFF 6.0, section 8)."""
    plane = 2 * GREY.size
    short = lambda tag, value: struct.pack("<HHIHH", tag, 3, 1, value, 0)
    longs = lambda tag, offset: struct.pack("<HHII", tag, 4, 3, offset)
    after = 8 + 2 + 12 * 9 + 4  # header, and directory of 9 entries
    strips = [after + 30 + i * plane for i in range(3)]
    entries = [short(256, 8), short(257, 8), struct.pack("<HHII", 258, 3, 3, after + 24)]
    entries += [short(259, 1), short(262, 2), longs(273, after), short(277, 3)]
    entries += [longs(279, after + 12), short(284, 2)]
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    sizes = struct.pack("<3I3I3H", *strips, plane, plane, plane, 16, 16, 16)
    return start + sizes + RNG.bytes(3 * plane), None


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
      suffix: of the file's name.
      make: returns the file.
      create: creates the file at a path instead of writing the bytes.
      tolerance: of its pixels, in grey levels.
    """

    suffix: str
    make: Callable[[], Encoded]
    create: Callable[[Path], None] | None = None
    tolerance: int = 0


KINDS = {
    "no permission": Kind(".png", lambda: (encoded(COLOUR), None)),
    "0 bytes": Kind(".png", lambda: (b"", None)),
    "truncated JPEG": Kind(".jpg", lambda: truncated(large("JPEG"))),
    "truncated PNG": Kind(".png", lambda: truncated(large("PNG"))),
    "truncated WebP": Kind(".webp", lambda: truncated(large("WEBP"))),
    "HTML": Kind(".jpg", lambda: (b"<html><body>404 not found</body></html>", None)),
    "EPS (runs Ghostscript)": Kind(".jpg", lambda: (encoded(COLOUR, "EPS"), None)),
    "named pipe": Kind(".png", lambda: (b"", None), os.mkfifo),
    "link to nothing": Kind(".png", lambda: (b"", None), lambda path: path.symlink_to("gone")),
    "32-bit float": Kind(".tif", lambda: (encoded(GREY / np.float32(255), "TIFF"), None)),
    "32-bit integer": Kind(".tif", lambda: (encoded(GREY.astype(np.int32), "TIFF"), None)),
    "signed 8-bit": Kind(".tif", lambda: (encoded(GREY, "TIFF", tiffinfo={339: 2}), None)),
    "16-bit planes": Kind(".tif", sixteen_bit_planes),
    "bomb, 144 Mpx of zeros": Kind(".png", bomb_of_zeros),
    "bomb, header of 400 Mpx": Kind(".png", lambda: (png(20000, 20000, 8, 0, []), None)),
    "PNG called .jpg": Kind(".jpg", lambda: (encoded(COLOUR), COLOUR)),
    "grey among RGB": Kind(".png", lambda: (encoded(GREY), grey_to_rgb(GREY))),
    "animated GIF": Kind(".gif", lambda: animated("GIF")),
    "animated PNG": Kind(".png", lambda: animated("PNG")),
    "animated WebP": Kind(".webp", lambda: animated("WEBP", lossless=True)),
    "palette with alpha": Kind(".png", palette_with_alpha, tolerance=1),
    "CMYK": Kind(".tif", cmyk, tolerance=1),
    "16-bit grey": Kind(".png", sixteen_bits),
    "16-bit grey, 0 is white": Kind(".tif", sixteen_bits_inverted),
    "EXIF-rotated": Kind(".png", exif_rotated),
    "1x1": Kind(".png", lambda: (encoded(COLOUR[:1, :1]), np.tile(COLOUR[:1, :1], (8, 8, 1)))),
    "20000x1": Kind(
        ".png", lambda: (encoded(np.full((1, 20000, 3), 77, np.uint8)), np.full(SHAPE, 77))
    ),
}


# ---- What loading them does ----


def outcome(name: str, policy: str, loader: str = "array") -> tuple[str, bool, float]:
    """Loads a folder with a picture of a kind.

    Args:
      name: a key of `KINDS`.
      policy: config.data.bad_images.
      loader: config.data.loader.

    Returns:
      (what happened, in a word or two; whether it is right; MiB that it took at its peak).
    """
    kind = KINDS[name]
    data, pixels = kind.make()
    drop_root = name == "no permission" and os.geteuid() == 0  # root may read everything
    if drop_root:  # imports modules that the other user may not be able to read
        outcome("grey among RGB", policy, loader)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder, path = work / "pictures", work / "pictures" / f"2{kind.suffix}"
        folder.mkdir()
        for good in (0, 1, 3):  # the first of ten is for testing
            (folder / f"{good}.png").write_bytes(encoded(COLOUR))
        (kind.create or (lambda path: path.write_bytes(data)))(path)
        (work / "cache").mkdir(mode=0o777)
        stack.enter_context(mock.patch.dict(os.environ, GENJAX_CACHE=str(work / "cache")))
        messages = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if name == "no permission":
            path.chmod(0)
        if drop_root:
            for each in (work, work / "cache"):
                each.chmod(0o777)
            stack.callback(os.seteuid, 0)
            os.seteuid(NOBODY)
        before = _peak()
        try:
            source = find_source(f"folder:{folder}", "train")
            dataset = load_dataset(source, SHAPE, loader=loader, bad_images=policy)
            images = dataset.batch(range(len(dataset)), range(len(dataset)))["image"]
        except UserError as error:
            right = pixels is None and policy == "fail" and str(path) in str(error)
            return "refused", right and "\n" not in str(error), _peak() - before
        memory = _peak() - before
        others = np.array_equal(images[[0, -1]], [COLOUR, COLOUR])
        if len(images) == 2:
            listed = [p for p, _ in dataset.skipped] == [str(path)]
            right = listed and str(path) in messages.getvalue() and others
            return "left out", right and pixels is None and policy == "skip", memory
        if pixels is None:
            return "DECODED", False, memory
        distance = np.abs(images[1].astype(int) - pixels).max()
        right = distance <= kind.tolerance and others and not dataset.skipped
        return "right pixels" if right else "WRONG PIXELS", right, memory


def _peak() -> float:
    """Returns the largest memory that this process has had, in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 2**10


def measured(task: tuple[str, str]) -> tuple[str, bool, float]:
    """Returns the `outcome` of (kind, policy) after that of a first picture, so that the memory of
    the decoders themselves is not counted."""
    outcome("grey among RGB", "fail")
    return outcome(*task)


def main() -> int:
    """Prints a table; returns the exit code."""
    tasks = [(name, policy) for name in KINDS for policy in POLICIES]
    # A process of its own for each: the peak of a process never falls.
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        results = dict(zip(tasks, pool.map(measured, tasks, chunksize=1)))
    print(f"{'kind':26} {'bytes':>7} {'fail':14} {'skip':14} {'MiB':>5}")
    wrong = 0
    for name, kind in KINDS.items():
        (failed, *_), (skipped, *_) = pair = [results[name, policy] for policy in POLICIES]
        memory = max(memory for *_, memory in pair)
        right = all(ok for _, ok, _ in pair) and memory < MEMORY_LIMIT
        wrong += not right
        size = len(kind.make()[0])
        note = "" if right else "   NOT AS EXPECTED"
        print(f"{name:26} {size:7} {failed:14} {skipped:14} {memory:5.1f}{note}")
    print(f"{wrong} of {len(KINDS)} kinds are not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
