"""Images of a NumPy file."""

import numpy as np
import pytest

from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.weights.read import read_arrays


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)


def test_it_is_read_as_it_is(tmp_path, images):
    labels = np.array([0, 2, 1, 0, 2, 1])
    np.savez(tmp_path / "a.npz", images=images, labels=labels, class_names=["x", "y", "z"])
    source = find_source(f"npz:{tmp_path}/a.npz", "train")
    got, classes = source.read([4, 0], (4, 5, 3))
    np.testing.assert_array_equal(got, images[[4, 0]])
    np.testing.assert_array_equal(classes, [2, 0])
    assert (source.size, source.class_names) == (6, ("x", "y", "z"))


def test_names_of_other_projects(tmp_path, images):
    np.savez_compressed(tmp_path / "a.npz", images[..., 0], np.arange(6))
    source = find_source(f"npz:{tmp_path}/a.npz", "all")
    assert source.class_names == ("0", "1", "2", "3", "4", "5")
    np.testing.assert_array_equal(source.read([1], (4, 5, 1))[0], images[[1], ..., :1])


@pytest.mark.parametrize(
    "arrays, says",
    [
        ({"pictures": np.zeros((2, 4, 4, 3), np.uint8)}, "it has none"),
        ({"images": np.zeros((2, 4, 4, 3))}, r"float64 \[2, 4, 4, 3\]"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"uint8 \[0, 4, 4, 3\]"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, "1 or 3 channels, last"),
        (
            {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(3, int)},
            r"integers \[2\]",
        ),
        (
            {
                "images": np.zeros((2, 4, 4, 3), np.uint8),
                "labels": np.array([0, 5]),
                "class_names": ["a"],
            },
            "do not name all",
        ),
        ({"images": np.array([{}], dtype=object)}, "not a NumPy .npz file"),
    ],
)
def test_what_it_cannot_be_is_told(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=says):
        find_source(f"npz:{tmp_path}/a.npz", "train")


def test_a_file_that_is_not_one(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        find_source(f"npz:{tmp_path}/a.npz", "train")
    (tmp_path / "a.npz").write_text("not a zip archive")
    with pytest.raises(UserError, match="not a NumPy .npz file"):
        find_source(f"npz:{tmp_path}/a.npz", "train")


def test_a_damaged_one(tmp_path, images):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=images)
    data = bytearray(path.read_bytes())
    for place in range(60, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            source = find_source(f"npz:{path}", "train")
        except UserError:
            continue
        np.testing.assert_array_equal(source.images, images)  # it did not matter


def test_a_pointer_of_git_lfs(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    for name in ("a.npz", "0.png", "1.png"):
        (tmp_path / name).write_text(pointer)
    for name in (f"npz:{tmp_path}/a.npz", f"codes:{tmp_path}/a.npz"):
        with pytest.raises(UserError, match="git lfs pull") as error:
            find_source(name, "train")
        assert "pickle" not in str(error.value)
    with pytest.raises(UserError, match="git lfs pull"):
        find_source(f"folder:{tmp_path}", "train").read([0], (8, 8, 3))
    with pytest.raises(UserError, match="git lfs pull"):
        read_arrays(tmp_path / "a.npz")


def test_a_copy_is_the_same_data(tmp_path, images):
    np.savez(tmp_path / "a.npz", images=images)
    one = find_source(f"npz:{tmp_path}/a.npz", "train")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert find_source(f"npz:{tmp_path}/b.npz", "train").fingerprint == one.fingerprint
    np.savez(tmp_path / "b.npz", images=255 - images)
    assert find_source(f"npz:{tmp_path}/b.npz", "train").fingerprint != one.fingerprint
