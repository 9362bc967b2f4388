"""Sources: any example by its position, in any process; damaged TFDS files are errors."""

import json
import os
import pickle
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from genjax.data import builders, tfds
from genjax.data.dataset import load_dataset
from genjax.data.sources import find_source
from genjax.errors import UserError

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    builders.prepare("digits", root)
    return root


@pytest.fixture
def copied(prepared, tmp_path):
    shutil.copytree(prepared / "digits", tmp_path / "digits")
    return tmp_path


def pictures(root, names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(path)


@pytest.mark.parametrize("kind", ["tfds", "folder"])
def test_examples_are_read_by_their_places_in_any_order(kind, prepared, tmp_path):
    if kind == "tfds":
        source = find_source("digits", "test", str(prepared))
    else:
        pictures(tmp_path, [f"{c}/{i:02d}.png" for c in "ab" for i in range(20)])
        source = find_source(f"folder:{tmp_path}", "train")
    images, labels = source.read(np.arange(source.size), SHAPE)
    assert images.shape == (source.size, *SHAPE) and images.dtype == np.uint8
    assert labels.shape == (source.size,) and labels.dtype == np.int32
    index = np.random.default_rng(0).integers(0, source.size, 50)
    for copy in (source, pickle.loads(pickle.dumps(source))):
        some, some_labels = copy.read(index, SHAPE)
        np.testing.assert_array_equal(some, images[index])
        np.testing.assert_array_equal(some_labels, labels[index])
    assert len(pickle.dumps(source)) < 5000  # no open file goes with it


def test_places_are_those_of_tfds(prepared):
    import tensorflow_datasets

    source = find_source("digits", "test[10:60]", str(prepared))
    examples = list(tensorflow_datasets.data_source("digits", data_dir=prepared, split="test"))[
        10:60
    ]
    images, labels = source.read(np.arange(source.size), SHAPE)
    np.testing.assert_array_equal(images, np.stack([e["image"] for e in examples]))
    np.testing.assert_array_equal(labels, [e["label"] for e in examples])


@pytest.mark.parametrize("fault", ["flip", "truncate", "zero"])
def test_a_damaged_record_is_named_and_never_read_wrong(copied, fault):
    (file,) = (copied / "digits" / "1.0.0").glob("*test.array_record*")
    good, rng = file.read_bytes(), random.Random(fault)
    source = find_source("digits", "test", str(copied))
    expected, expected_labels = source.read(np.arange(source.size), SHAPE)
    refused = 0
    for _ in range(25):
        place, data = rng.randrange(len(good)), bytearray(good)
        if fault == "flip":
            data[place] ^= 1 << rng.randrange(8)
        elif fault == "truncate":
            del data[place:]
        else:
            data[place : place + 5000] = bytes(len(data[place : place + 5000]))
        file.write_bytes(data)
        tfds._open.cache_clear()  # as in a new process
        try:
            images, labels = source.read(np.arange(source.size), SHAPE)
        except UserError as error:
            refused += 1
            text = str(error)
            assert "'digits'" in text and str(file.parent) in text and "\n" not in text
            assert "record" in text and "--mode=prepare" in text
        else:
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, expected_labels)
    assert refused > 5


def test_the_damaged_record_has_its_index(copied, monkeypatch):
    monkeypatch.setenv("GENJAX_CACHE", str(copied / "cache"))  # no array from before the damage
    (file,) = (copied / "digits" / "1.0.0").glob("*test.array_record*")
    source = find_source("digits", "test", str(copied))
    images, _ = source.read(np.arange(source.size), SHAPE)
    # The 100th chunk of a record, by the PNG signature in it.
    data, place = bytearray(file.read_bytes()), -1
    for _ in range(100):
        place = data.index(b"\x89PNG", place + 1)
    data[place + 60] ^= 1
    file.write_bytes(data)
    tfds._open.cache_clear()
    for bad_images in ("fail", "skip"):  # a damaged TFDS file is always an error
        with pytest.raises(UserError, match="record 99 of split 'test'"):
            load_dataset(source, SHAPE, bad_images=bad_images)
    stream = load_dataset(source, SHAPE, loader="grain")
    with pytest.raises(UserError, match="record 99 of split 'test'"):
        stream.batch([5, 99, 7], range(3))
    good = np.delete(np.arange(source.size), 99)
    np.testing.assert_array_equal(source.read(good, SHAPE)[0], images[good])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"splits": 3}', b"\xff\xfe"])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_metadata_is_named(copied, name, content):
    (copied / "digits" / "1.0.0" / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        find_source("digits", "test", str(copied))
    text = str(error.value)
    assert "is damaged" in text and str(copied / "digits" / "1.0.0") in text and "\n" not in text


@pytest.mark.parametrize(
    "beside",
    ["1.0.0.old", "1.0.0_backup", "2.0.0-rc1", "1.0", "a.b.c", "1.0.0 (copy)", "1..0", "²0.0.0"],
)
def test_a_folder_beside_the_versions_is_none(copied, beside):
    shutil.copytree(copied / "digits" / "1.0.0", copied / "digits" / beside)
    assert find_source("digits", "test", str(copied)).version == "1.0.0"


@pytest.mark.parametrize("problem", ["tfrecord", "damaged", "no classes"])
def test_a_newer_version_that_cannot_be_read_hides_no_older_one(copied, capsys, problem):
    expected = find_source("digits", "test", str(copied))
    newer = copied / "digits" / "1.10.0"
    shutil.copytree(copied / "digits" / "1.0.0", newer)
    assert find_source("digits", "test", str(copied)).version == "1.10.0"
    info = newer / "dataset_info.json"
    if problem == "tfrecord":
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
    elif problem == "damaged":
        info.write_text("{")
    else:
        (newer / "features.json").unlink()
    source = find_source("digits", "test", str(copied))
    assert source.version == "1.0.0" and source.fingerprint == expected.fingerprint
    assert "using version 1.0.0" in capsys.readouterr().err
    with pytest.raises(UserError, match="1.10.0"):  # asked for, it is not replaced
        find_source("digits:1.10.0", "test", str(copied))
    shutil.rmtree(copied / "digits" / "1.0.0")
    with pytest.raises(UserError, match="1.10.0"):
        find_source("digits", "test", str(copied))


def test_missing_files_are_named(copied):
    source = find_source("digits", "test", str(copied))
    for file in (copied / "digits" / "1.0.0").glob("*test.array_record*"):
        file.unlink()
    tfds._open.cache_clear()
    with pytest.raises(UserError, match="is damaged") as error:
        source.read([0], SHAPE)
    assert str(copied / "digits" / "1.0.0") in str(error.value) and "\n" not in str(error.value)


# --- folders ---


def test_folders_that_are_called_like_pictures_are_folders(tmp_path):
    pictures(tmp_path, [f"{c}.png/{i}.png" for c in "ab" for i in range(3)])
    source = find_source(f"folder:{tmp_path}", "train")
    assert source.size == 5 and source.class_names == ("a.png", "b.png")
    assert source.read(np.arange(5), SHAPE)[0].shape == (5, *SHAPE)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    pictures(tmp_path / "elsewhere", ["0.png", "1.png"])
    root = tmp_path / "root"
    pictures(root, ["a/0.png", "a/1.png"])
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "back").symlink_to(root / "a")
    source = find_source(f"folder:{root}", "train")
    names = [os.path.relpath(path, root) for path in source.paths]
    assert {"b/1.png", "c/1.png", "a/1.png"} <= set(names)
    assert source.class_names == ("a", "b", "c")


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    pictures(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="Permission denied") as error:
        find_source(f"folder:{tmp_path}", "train")
    assert str(tmp_path / "b") in str(error.value)


def test_any_name_of_a_file_is_read_and_told_in_one_line(tmp_path):
    names = ["a.png", "b\nc.png", os.fsdecode(b"d\xff.png"), "e f'\".png"]
    pictures(tmp_path, names)
    source = find_source(f"folder:{tmp_path}", "train")
    data = load_dataset(source, SHAPE)
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [1, 2, 3])
    (tmp_path / names[1]).write_bytes(b"")
    source = find_source(f"folder:{tmp_path}", "train")
    with pytest.raises(UserError) as error:
        load_dataset(source, SHAPE)
    assert "b c.png" in str(error.value) and "\n" not in str(error.value)
    assert len(load_dataset(source, SHAPE, bad_images="skip")) == 2


def test_a_changed_permission_is_a_change(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])
    before = find_source(f"folder:{tmp_path}", "train").fingerprint
    (tmp_path / "b.png").chmod(0)
    assert find_source(f"folder:{tmp_path}", "train").fingerprint != before


def test_the_metadata_of_a_copy_gives_the_same_fingerprint(prepared, copied):
    sources_of = [find_source("digits", "test", str(root)) for root in (prepared, copied)]
    assert sources_of[0].fingerprint == sources_of[1].fingerprint
    info = copied / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "description": "other"}))
    assert find_source("digits", "test", str(copied)).fingerprint != sources_of[0].fingerprint
