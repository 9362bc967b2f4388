"""Reading and writing pictures: size, orientation, transparency, bit depth; colour transfer."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.style.pair import Pair
from genjax.data.picture import EMBEDDED
from genjax.errors import UserError
from genjax.plots import PixelsNotFinite
from genjax.style import pictures
from genjax.style.color import COLORS, keep_color, match_color
from genjax.style.pictures import Size

RNG = np.random.default_rng(0)


def test_embedded_pictures():
    for name in EMBEDDED:
        assert pictures.size_of(name, "content") == Size(427, 640)
        image = pictures.read_rgb(name, "content", Size(43, 64))
        assert image.shape == (43, 64, 3) and image.std() > 0.1


def test_turned_by_exif_and_laid_over_white(tmp_path):
    pixels = np.zeros((8, 16, 4), np.uint8)
    pixels[:, 8:] = (255, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    assert pictures.size_of(path, "content") == Size(16, 8)
    image = pictures.read_rgb(path, "content", Size(16, 8))
    np.testing.assert_array_equal(image[0, 0], (1, 1, 1))
    np.testing.assert_array_equal(image[-1, 0], (1, 0, 0))
    alpha = pictures.read_alpha(path, "content", Size(16, 8))
    assert alpha[0, 0] == 0 and alpha[-1, 0] == 1
    opaque = tmp_path / "opaque.png"
    Image.fromarray(pixels[..., :3]).save(opaque)
    assert pictures.read_alpha(opaque, "content", Size(16, 8)) is None


@pytest.mark.parametrize("with_alpha", [False, True])
def test_what_is_written(tmp_path, with_alpha):
    image = RNG.random((6, 5, 3)).astype(np.float32)
    alpha = RNG.random((6, 5)).astype(np.float32) if with_alpha else None
    pixels = np.concatenate([image, alpha[..., None]], -1) if with_alpha else image
    for kind in pictures.KINDS:
        path = pictures.save_picture(tmp_path / kind, image, alpha, kind, {"content": "a.jpg"})
        with Image.open(path) as saved:
            saved.load()
            if kind == "jpeg":
                assert saved.mode == "RGB" and b"a.jpg" in saved.info["comment"]
                assert b"trainedAlgorithmicMedia" in saved.info["xmp"]
                over = image if alpha is None else image * alpha[..., None] + 1 - alpha[..., None]
                assert np.abs(np.asarray(saved) / 255 - over).mean() < 0.2
                continue
            assert saved.text["genjax:content"] == "a.jpg" and "synthetic" in saved.text["Source"]
            np.testing.assert_allclose(np.asarray(saved) / 255, pixels, atol=1 / 250)
    data = (tmp_path / "png16.png").read_bytes()
    assert np.abs(sixteen(data) / 65535 - pixels).max() < 1e-5


@pytest.mark.parametrize("kind", pictures.KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_picture_that_is_not_finite_is_refused_in_every_format(tmp_path, kind, bad):
    image = RNG.random((6, 5, 3)).astype(np.float32)
    image[2, 3, 1] = bad
    with pytest.raises(PixelsNotFinite, match="picture .result"):
        pictures.save_picture(tmp_path / "new" / "result", image, None, kind, {})
    assert not list(tmp_path.iterdir())
    for color in COLORS:
        with pytest.raises(PixelsNotFinite):  # before an infinity is clipped to white
            Pair("china", "flower", color).finish(image)


def sixteen(data):
    """Decodes a 16-bit PNG with filter 1 in every line."""
    chunks, position = {}, 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", data, position + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    width, height, depth, color = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    channels = {2: 3, 6: 4}[color]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert depth == 16 and (lines[:, 0] == 1).all()
    rows = lines[:, 1:].reshape(height, width, 2 * channels)
    rows = np.cumsum(rows, axis=1, dtype=np.uint8)
    return rows.reshape(height, width, channels, 2).view(">u2")[..., 0]


def test_colors():
    content, style = RNG.random((9, 8, 3)), RNG.random((7, 5, 3)) ** 2
    content, style = 0.3 + 0.4 * content, 0.3 + 0.4 * style
    kept = keep_color(style[:7, :5], content[:7, :5])
    luminance = lambda x: x @ [0.299, 0.587, 0.114]
    inside = (kept > 0).all(-1) & (kept < 1).all(-1)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(luminance(kept)[inside], luminance(style)[inside], atol=2e-3)
    matched = match_color(style, content)
    flat = lambda x: x.reshape(-1, 3)
    np.testing.assert_allclose(flat(matched).mean(0), flat(content).mean(0), atol=0.02)
    np.testing.assert_allclose(np.cov(flat(matched).T), np.cov(flat(content).T), atol=0.004)


def test_bad_pictures_are_one_line(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name, message in {
        "text.jpg": "config.style: cannot read the picture .*text.jpg: it is not a picture",
        "empty.png": "config.style: cannot read the picture .*empty.png: the file is empty",
        "folder.png": "config.style: there is no picture",
        "none.png": "config.style: there is no picture .*'china' or 'flower'",
    }.items():
        with pytest.raises(UserError, match=message) as info:
            pictures.size_of(tmp_path / name, "style")
        assert "\n" not in str(info.value)
