"""What of a folder is a picture, a class and a split: as a person would say who looks into it."""

import os

import numpy as np
import pytest
from PIL import Image

from genjax.data.folder import folder_source
from genjax.data.listing import OTHER_PICTURES, PICTURE_SUFFIXES, in_order, split_of
from genjax.errors import UserError
from tests.data.test_sources import pictures

SHAPE = (8, 8, 1)


def both(root):
    return [folder_source(root, split) for split in ("train", "test")]


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize(
    "train, test",
    [
        ("train", "test"),
        ("train", "val"),
        ("Train", "Test"),
        ("TRAIN", "Validation"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("trainset", "validset"),
        ("train-images", "dev"),
        ("train2017", "val2017"),
        ("TrainImages", "TestImages"),
        ("seg_train", "seg_test"),
    ],
)
def test_splits_are_splits_however_they_are_spelled(tmp_path, train, test):
    pictures(tmp_path, [f"{train}/{c}/{i}.png" for c in "ab" for i in range(3)])
    pictures(tmp_path, [f"{test}/{c}/{i}.png" for c in "ab" for i in range(2)])
    sources = both(tmp_path)
    assert [s.size for s in sources] == [6, 4]
    assert all(s.class_names == ("a", "b") for s in sources)
    assert sources[1].labels.tolist() == [0, 0, 1, 1]
    assert all(f"/{test}/" in path for path in sources[1].paths)
    assert sources[1].summary == f"4 pictures in 2 classes: a, b (of {test}/)"


def test_test_is_for_testing_where_there_is_val_too(tmp_path):
    pictures(tmp_path, [f"{s}/a/{i}.png" for s in ("train", "val", "test") for i in range(2)])
    assert all("/test/" in path for path in folder_source(tmp_path, "test").paths)
    assert all("/val/" in path for path in folder_source(tmp_path, "val").paths)
    assert folder_source(tmp_path, "all").size == 6


@pytest.mark.parametrize(
    "name", ["trains", "contest", "latest", "dog", "test tube", "station", "developer", "value"]
)
def test_other_names_mean_no_split(name):
    assert split_of(name) is None


def test_a_train_is_a_class_among_vehicles(tmp_path):
    pictures(tmp_path, [f"{c}/{i}.png" for c in ("bus", "car", "train") for i in range(4)])
    assert folder_source(tmp_path, "train").class_names == ("bus", "car", "train")


# {what is wrong: (pictures, other files, what the message says)}
AMBIGUOUS = {
    "a split alone": (["train/a/0.png", "train/b/1.png"], [], "no split test or val"),
    "no training": (["test/a/0.png", "val/a/1.png"], [], "no split train"),
    "a split beside classes": (["cat/0.png", "dog/1.png", "test/2.png"], [], "beside cat, dog"),
    "splits beside classes": (["train/a/0.png", "test/a/1.png", "more/2.png"], [], "beside more"),
    "one split twice": (["train/a/0.png", "Train/a/1.png", "test/a/1.png"], [], "which of them"),
    "domains": (
        [f"{x}/{i}.png" for x in ("trainA", "testA") for i in "01"],
        [],
        "splits",
    ),
    "splits in classes": (["a/train/0.png", "a/test/1.png", "b/2.png"], [], "above the classes"),
    "flat beside classes": (["0.png", "a/1.png", "b/2.png"], [], "0.png"),
    "flat testing": (["train/a/0.png", "train/b/0.png", "test/1.png"], [], "without"),
    "flat training": (["train/0.png", "test/a/1.png", "test/b/1.png"], [], "without"),
    "a class for testing": (["train/a/0.png", "test/a/1.png", "test/b/2.png"], [], "class 'b'"),
    "one picture": (["a/0.png", "b/1.png", "b/2.png"], [], "class 'a'"),
    "a wrapper": (["data/a/0.png", "data/b/1.png"], [], "data would be the only class"),
    "unread formats": (["a/0.png", "a/1.png", "b/2.png"], ["c/0.HEIC"], r"c would be.*1 \.heic"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_one_would_have_to_guess_is_refused_in_one_line(tmp_path, name):
    made, others, says = AMBIGUOUS[name]
    pictures(tmp_path, made)
    files(tmp_path, *others)
    with pytest.raises(UserError, match=says) as error:
        both(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert folder_source(tmp_path, "all").size == len(made)  # where classes do not matter


def test_an_empty_class_is_refused(tmp_path):
    pictures(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="/c would be a class, but holds nothing"):
        folder_source(tmp_path, "train")


DROPPINGS = (
    *(".ipynb_checkpoints/0-checkpoint.png", "a/.ipynb_checkpoints/0-checkpoint.png"),
    *("__MACOSX/a/._0.png", "__MACOSX/0.png", "a/._0.png", ".DS_Store", "a/Thumbs.db"),
    *("@eaDir/0.png", "a/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", ".Trash-1000/files/0.png"),
    *("lost+found/0.png", "$RECYCLE.BIN/0.png", "System Volume Information/x", "__pycache__/x.pyc"),
    *("a/.0.png.swp", "a/0.png~", "a/~$0.png", "a/.hidden.png", "desktop.ini", ".git/x.png"),
)


def test_what_tools_leave_behind_is_neither_class_nor_picture(tmp_path):
    pictures(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(10)])
    clean = both(tmp_path)
    files(tmp_path, *DROPPINGS)
    for before, source in zip(clean, both(tmp_path), strict=True):
        assert source.class_names == ("a", "b") and source.paths == before.paths
        assert source.fingerprint == before.fingerprint
        assert "hidden or left behind" in source.summary
    assert folder_source(tmp_path, "all").size == 20


def test_a_picture_is_what_a_person_calls_one_and_the_rest_is_counted(tmp_path):
    pictures(tmp_path, ["a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/4.png"])
    for suffix in (".jfif", ".JPE", ".PnG", ".jpg "):
        image = Image.new("L", (8, 8), 200)
        image.save(tmp_path / "a" / f"x{suffix}", "png" if "n" in suffix else "jpeg")
    files(tmp_path, "a/y.HEIC", "a/z.HEIC", "a/notes.txt", "README", "annotations/0.xml")
    source = folder_source(tmp_path, "all")
    assert source.size == 9 and (source.read(range(9), SHAPE)[0][5:] >= 0).all()
    source = folder_source(tmp_path, "train")
    assert source.class_names == ("a", "b")
    assert source.summary == (
        "8 pictures in 2 classes: a, b; left out: 5 files (2 .heic, 1 .txt, 1 .xml, 1 no suffix)"
    )
    assert not set(OTHER_PICTURES) & set(PICTURE_SUFFIXES)


def test_numbers_are_sorted_as_numbers(tmp_path):
    pictures(tmp_path, [f"{c}/{i}.png" for c in (0, 1, 2, 10, 11) for i in range(2)])
    source = folder_source(tmp_path, "test")
    assert source.class_names == ("0", "1", "2", "10", "11")
    named = [os.path.basename(os.path.dirname(path)) for path in source.paths]
    assert [source.class_names[i] for i in source.labels] == named
    assert in_order(["1", "-2", "-10", "0.5"]) == ["-10", "-2", "0.5", "1"]
    assert in_order(["b", "a10", "a9", "a"]) == ["a", "a9", "a10", "b"]
    assert in_order(["n02", "n01", "m"]) == ["m", "n01", "n02"]
    assert in_order(["10000000000000000001", "10000000000000000000", "9"])[0] == "9"


def test_names_of_classes_are_text(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / "cafe\u0301").mkdir()
    for folder in list(tmp_path.iterdir()):
        pictures(folder, [f"{i}.png" for i in range(3)])
    source = folder_source(tmp_path, "train")
    assert source.class_names == (r"caf\xe9", "caf\u00e9")
    source.summary.encode()


def test_one_class_is_a_class_and_none_is_none(tmp_path):
    pictures(tmp_path / "one", ["a/0.png", "a/1.png"])
    assert folder_source(tmp_path / "one", "train").class_names == ("a",)
    pictures(tmp_path / "flat", ["0.png", "1.png"])
    assert folder_source(tmp_path / "flat", "train").class_names == ()
    with pytest.raises(UserError, match="0 pictures; left out: 1 file .1 .heic"):
        files(tmp_path / "none", "x.heic")
        folder_source(tmp_path / "none", "train")


def test_a_copy_has_the_checksum_and_a_change_another(tmp_path):
    import shutil

    pictures(tmp_path / "one", [f"{c}/{i}.png" for c in "ab" for i in range(9)])
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copy)
    os.utime(tmp_path / "two" / "a" / "1.png", (1, 1))
    one, two = (folder_source(tmp_path / name, "train") for name in ("one", "two"))
    assert one.checksum() == two.checksum() and one.fingerprint != two.fingerprint
    Image.new("L", (8, 8), 255).save(tmp_path / "two" / "a" / "1.png")
    assert folder_source(tmp_path / "two", "train").checksum() != one.checksum()
    np.testing.assert_array_equal(one.labels, two.labels)
