"""Pictures of every kind that folders contain, with both policies and both loaders."""

import errno
import io
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faults import images as faults
from genjax.data import images
from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError

# pytest keeps no filter that was set while it collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
BOMBS = [name for name in faults.KINDS if name.startswith("bomb")]


@pytest.mark.parametrize("name", faults.KINDS)
def test_every_kind_follows_the_policy_or_has_the_right_pixels(name):
    for loader in ("array", "grain"):
        for policy in faults.POLICIES:
            what, right, _ = faults.outcome(name, policy, loader)
            assert right, (loader, policy, what)


def test_bombs_take_no_memory():
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in BOMBS:
            what, right, memory = pool.apply(faults.measured, ((name, "fail"),))
            assert right and memory < faults.MEMORY_LIMIT, (name, what, memory)


def test_pillow_adds_no_noise(tmp_path):
    # 100 megapixels: where Pillow warns; and a TIFF about which it logs an error.
    (tmp_path / "a.png").write_bytes(faults.png(10000, 10000, 8, 0, []))
    data = bytearray(faults.encoded(faults.COLOUR, "TIFF"))
    entry = data.index(b"\x15\x01\x03\x00")  # SamplesPerPixel, tag 277
    data[entry + 8 : entry + 10] = b"\x00\x08"
    (tmp_path / "b.tif").write_bytes(data)
    program = """
import sys
from genjax.data.images import BadImage, read_image
for path in sys.argv[1:]:
    try:
        read_image(path, (8, 8, 3))
    except BadImage as error:
        print(error.reason)
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, tmp_path / "a.png", tmp_path / "b.tif"],
        capture_output=True,
        text=True,
    )
    assert done.stderr == "" and done.returncode == 0
    assert "10000x10000" in done.stdout and len(done.stdout.splitlines()) == 2


def test_the_limit_counts_pixels(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(faults.encoded(faults.COLOUR))
    monkeypatch.setattr(images, "MAX_PIXELS", 64)
    np.testing.assert_array_equal(images.read_image(path, (8, 8, 3)), faults.COLOUR)
    monkeypatch.setattr(images, "MAX_PIXELS", 63)
    with pytest.raises(images.BadImage, match="8x8 pixels, more than 63"):
        images.read_image(path, (8, 8, 3))


def test_a_failure_of_the_machine_is_no_bad_picture(tmp_path, monkeypatch):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(faults.encoded(faults.COLOUR))

    def too_many_files(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(images.Image, "open", too_many_files)
    for loader in ("array", "grain"):
        with pytest.raises(UserError, match="Too many open files") as error:
            load_dataset(
                find_source(f"folder:{tmp_path}", "train"),
                (8, 8, 3),
                loader=loader,
                bad_images="skip",
            )
        assert not isinstance(error.value, images.BadImage)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_of_16_bit_grey(tmp_path, orientation):
    wide = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(wide).save(path, exif=exif.tobytes())
    # EXIF 2.3, table 6: which corner of the scene the first row and column of the file are.
    upright = {
        1: wide,
        2: wide[:, ::-1],
        3: wide[::-1, ::-1],
        4: wide[::-1],
        5: wide.T,
        6: np.rot90(wide, -1),
        7: wide[::-1, ::-1].T,
        8: np.rot90(wide),
    }[orientation]
    expected = np.rint(upright / 257).astype(np.uint8)
    np.testing.assert_array_equal(images.read_image(path, (8, 8, 1))[..., 0], expected)


def test_16_bit_arrays_are_scaled():
    wide = np.array([0, 128, 129, 32896, 65535], np.uint16).reshape(1, 5, 1)
    np.testing.assert_array_equal(images.fit_image(wide, (1, 5, 1)).ravel(), [0, 0, 1, 128, 255])


def test_16_bit_grey_with_a_transparent_value(tmp_path):
    wide = np.array([[0, 1000, 65535]], np.uint16)
    data = faults.png(3, 1, 16, 0, faults.scanlines(wide.astype(">u2")), [(b"tRNS", b"\x03\xe8")])
    (tmp_path / "a.png").write_bytes(data)
    got = images.read_image(tmp_path / "a.png", (1, 3, 1))
    np.testing.assert_array_equal(got.ravel(), [0, 255, 255])


def test_a_flipped_byte_of_a_png_never_gives_other_pixels(tmp_path):
    path, wrong, refused = tmp_path / "a.png", 0, 0
    good = faults.encoded(faults.COLOUR)
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            wrong += not np.array_equal(images.read_image(path, (8, 8, 3)), faults.COLOUR)
        except images.BadImage:
            refused += 1
    assert wrong == 0 and refused > len(good) / 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_no_beginning_of_a_file_is_a_picture(tmp_path, kind):
    data = faults.encoded(faults.COLOUR, kind)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    path = tmp_path / "a"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(images.read_image(path, (8, 8, 3)), whole)
        except images.BadImage as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_what_is_skipped_is_told_again_from_the_cache(tmp_path, capsys):
    names = [f"{i:02d}.png" for i in range(40)]
    for name in names:
        (tmp_path / name).write_bytes(faults.encoded(faults.COLOUR))
    (tmp_path / "07.png").write_bytes(b"")
    (tmp_path / "33.png").write_text("<html>")
    told = []
    for loader in ("array", "grain", "array", "grain"):
        source = find_source(f"folder:{tmp_path}", "train")
        data = load_dataset(source, (8, 8, 3), loader=loader, bad_images="skip")
        assert [Path(path).name for path, _ in data.skipped] == ["07.png", "33.png"]
        assert len(data) == 36 - 2
        told.append(capsys.readouterr().err)
    first, again = told[:2], told[2:]
    assert all("2 of 36 pictures" in t and "07.png: the file is empty" in t for t in told)
    assert "decoding" in first[0] and "decoding" not in again[0]
    assert "looking for" in first[1] and "looking for" not in again[1]
    with pytest.raises(UserError, match="07.png"):  # although an earlier run skipped it
        load_dataset(source, (8, 8, 3))


def test_classes_and_splits_do_not_depend_on_bad_pictures(tmp_path):
    for i, name in enumerate(f"{c}/{i:02d}.png" for c in "abc" for i in range(10)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        # Of "b" nothing can be read; of the others all but one.
        good = name[0] != "b" and name[2:4] != "05"
        path.write_bytes(faults.encoded(np.full((8, 8, 3), i, np.uint8)) if good else b"")
    for split, expected in (
        ("train", [i for i in range(30) if i % 10 not in (0, 5) and i // 10 != 1]),
        ("test", [0, 20]),
    ):
        for loader in ("array", "grain"):
            source = find_source(f"folder:{tmp_path}", split)
            data = load_dataset(source, (8, 8, 3), loader=loader, bad_images="skip")
            batch = data.batch(np.arange(len(data)), np.arange(len(data)))
            assert data.class_names == ("a", "b", "c")
            np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], expected)
            np.testing.assert_array_equal(batch["label"], np.array(expected) // 10)


@pytest.mark.parametrize("loader", ["array", "grain"])
def test_a_folder_without_one_good_picture(tmp_path, loader):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        source = find_source(f"folder:{tmp_path}", "train")
        load_dataset(source, (8, 8, 3), loader=loader, bad_images="skip")
    assert "none of the 4 pictures" in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
