import json

import numpy as np
import pytest
from PIL import Image

from genjax.data import dataset as ds
from genjax.data.images import fit_image
from genjax.data.sources import find_source
from genjax.errors import UserError


@pytest.fixture
def digits():
    return ds.load_dataset(find_source("digits", "train"), (28, 28, 1))


def make(size, shape=(2, 2, 1)):
    images = np.arange(size * np.prod(shape)).reshape(size, *shape).astype(np.uint8)
    return ds.Dataset("made", "train", images, np.arange(size, dtype=np.int32) % 3, (), "")


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    test = ds.load_dataset(find_source("digits", "test"), (8, 8, 1))
    train = ds.load_dataset(find_source("digits", "train"), (8, 8, 1))
    assert (len(train), len(test)) == (1415, 382)
    assert digits.images.shape == (1415, 28, 28, 1) and digits.images.dtype == np.uint8
    ours = sorted(bytes(i) for i in np.concatenate([train.images, test.images]))
    theirs = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert ours == sorted(bytes(i) for i in theirs)
    assert np.bincount(train.labels, minlength=10).min() > 100
    assert train.class_names == tuple("0123456789")


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 48, 3)])
def test_any_image_shape(shape):
    data = ds.load_dataset(find_source("digits", "test"), shape)
    assert data.images.shape == (382, *shape)
    assert data.images.max() > 200  # not blank


def test_a_batch_is_a_function_of_seed_and_step():
    data = make(10)
    first, again, other = (ds.train_batches(data, 4, seed) for seed in (0, 0, 1))
    for step in (7, 0, 123_456_789, 7):
        for key, value in first(step).items():
            np.testing.assert_array_equal(value, again(step)[key])
    assert any((first(s)["index"] != other(s)["index"]).any() for s in range(5))


def test_every_epoch_holds_every_example_once_in_an_order_of_its_own():
    size, batch_size = 10, 4  # batches reach over the edges of epochs
    batch = ds.train_batches(make(size), batch_size, seed=0)
    order = np.concatenate([batch(s)["index"] for s in range(25)]).reshape(-1, size)
    assert (np.sort(order, axis=1) == np.arange(size)).all()
    assert len({tuple(epoch) for epoch in order}) == len(order)


def test_a_batch_may_be_larger_than_the_dataset():
    batch = ds.train_batches(make(3), 8, seed=0)(5)
    assert np.bincount(batch["index"], minlength=3).min() >= 2
    np.testing.assert_array_equal(batch["slot"], np.arange(8))


def test_images_belong_to_their_labels_and_indices():
    data = make(50)
    batch = ds.train_batches(data, 16, seed=0)(3)
    np.testing.assert_array_equal(batch["image"], data.images[batch["index"]])
    np.testing.assert_array_equal(batch["label"], data.labels[batch["index"]])


def test_evaluation_in_rows_has_the_mask_of_the_whole_batch():
    data = make(10)
    whole = list(ds.eval_batches(data, 4))
    for rows in (slice(0, 2), slice(2, 4), slice(None)):
        for expected, part in zip(whole, ds.eval_batches(data, 4, rows), strict=True):
            np.testing.assert_array_equal(part.pop("mask"), expected["mask"])
            for key, value in part.items():
                np.testing.assert_array_equal(value, expected[key][rows])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_of_all_processes_make_the_batch(processes):
    data, size = make(10), 8 // processes
    whole = ds.train_batches(data, 8, seed=0)
    parts = [
        ds.train_batches(data, 8, seed=0, rows=slice(i * size, (i + 1) * size))
        for i in range(processes)
    ]
    for step in (0, 1, 10**8):
        batches = [part(step) for part in parts]
        for key, value in whole(step).items():
            np.testing.assert_array_equal(value, np.concatenate([b[key] for b in batches]))


@pytest.mark.parametrize("size,batch_size", [(10, 4), (3, 8), (8, 4), (1, 1)])
def test_evaluation_counts_every_example_exactly_once(size, batch_size):
    batches = list(ds.eval_batches(make(size), batch_size))
    assert {len(b["image"]) for b in batches} == {batch_size}
    counted = np.concatenate([b["index"][b["mask"]] for b in batches])
    np.testing.assert_array_equal(counted, np.arange(size))


def test_an_empty_dataset_is_refused():
    with pytest.raises(UserError, match="no examples"):
        ds.train_batches(make(0), 4, seed=0)


def folder_of_pictures(root, names, size=(9, 7)):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i, 2 * i, 100)).save(path)


def test_a_folder_with_classes_and_splits(tmp_path):
    names = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(3)]
    folder_of_pictures(tmp_path, names)
    source = find_source(f"folder:{tmp_path}", "train")
    data = ds.load_dataset(source, (8, 8, 3))
    assert data.class_names == ("a", "b") and data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(data.images[4, 0, 0], [4, 8, 100])


def test_a_flat_folder_is_split_without_overlap(tmp_path):
    folder_of_pictures(tmp_path, [f"{i:02d}.jpg" for i in range(23)])
    train = find_source(f"folder:{tmp_path}", "train")
    test = find_source(f"folder:{tmp_path}", "test")
    assert (train.size, test.size) == (20, 3)
    assert ds.load_dataset(train, (4, 4, 1)).images.shape == (20, 4, 4, 1)


def test_a_folder_is_decoded_again_when_it_changed(tmp_path, capsys):
    folder_of_pictures(tmp_path, ["a.png", "b.png"])
    load = lambda: ds.load_dataset(find_source(f"folder:{tmp_path}", "train"), (4, 4, 3))
    before = load()
    assert "decoding" in capsys.readouterr().err
    assert load().fingerprint == before.fingerprint and "decoding" not in capsys.readouterr().err
    Image.new("RGB", (5, 5), (200, 0, 0)).save(tmp_path / "b.png")
    assert load().images[0, 0, 0, 0] == 200


def test_an_unreadable_picture_is_named(tmp_path):
    folder_of_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_text("<html>no picture</html>")
    with pytest.raises(UserError, match="b.png"):
        ds.load_dataset(find_source(f"folder:{tmp_path}", "train"), (4, 4, 3))
    leftovers = [p for p in (ds.cache_root() / "arrays").iterdir() if p.name.startswith(".")]
    assert not leftovers


def test_missing_things_are_named_with_what_to_do(tmp_path):
    for name, said in {
        "mnist": "--mode=prepare --config.data.name=mnist",
        f"folder:{tmp_path}/none": "no folder",
        f"folder:{tmp_path}": "pictures",
    }.items():
        with pytest.raises(UserError, match=said):
            find_source(name, "train", str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'test'"):
        find_source("digits", "tests")


def test_a_split_expression(digits):
    source = find_source("digits", "train[:100]")
    data = ds.load_dataset(source, (28, 28, 1))
    assert source.size == len(data) == 100
    np.testing.assert_array_equal(data.images, digits.images[:100])


def test_a_prepared_tfds_directory_is_read(tmp_path):
    import tensorflow_datasets as tfds

    class TwoColours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.1.0")
        name = "two_colours"
        pkg_dir_path = tmp_path  # TFDS looks for a README next to the builder

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["red", "blue"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for i in range(count):
                colour = ((255, 0, 0), (0, 0, 255))[i % 2]
                yield i, {"image": Image.new("RGB", (6 + i, 5), colour), "label": i % 2}

    TwoColours(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = find_source("two_colours", "train", str(tmp_path))
    data = ds.load_dataset(source, (4, 4, 3))
    assert (source.version, len(data), data.class_names) == ("2.1.0", 6, ("red", "blue"))
    for image, label in zip(data.images, data.labels):
        assert (image == ((255, 0, 0), (0, 0, 255))[label]).all()
    assert find_source("two_colours:2.1.0", "test", str(tmp_path)).size == 2
    with pytest.raises(UserError, match="not in"):
        find_source("two_colours:9.9.9", "test", str(tmp_path))
    info = tmp_path / "two_colours" / "2.1.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="need TensorFlow"):
        find_source("two_colours", "train", str(tmp_path))


def test_fit_image():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255  # the centre square
    assert (fit_image(wide, (10, 10, 3)) == 255).all()
    assert fit_image(wide, (5, 5, 1)).shape == (5, 5, 1)
    same = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(fit_image(same, (2, 2, 3)), same)
    # Transparent pixels are white, whatever colour hides under them.
    assert (fit_image(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), (4, 4, 3)) == 255).all()
    assert fit_image(Image.new("1", (4, 4), 1), (4, 4, 1)).max() == 255
    grey = np.full((4, 4, 1), 7, np.uint8)
    np.testing.assert_array_equal(fit_image(grey, (4, 4, 3)), np.full((4, 4, 3), 7, np.uint8))
