import numpy as np
import pytest

from genjax.data.source import Source
from genjax.data.sources import find_source
from genjax.data.stacked import SIZES, stacked_mnist
from genjax.errors import UserError


class Digits(Source):
    """Ten digits; all pixels of digit k are k, in any shape."""

    def read(self, index, image_shape):
        index = np.asarray(index)
        images = np.broadcast_to((index % 10)[:, None, None, None], (len(index), *image_shape))
        return images.astype(np.uint8), (index % 10).astype(np.int32)


def digits(fingerprint="abc"):
    return Digits("mnist", "3.0.1", "train", fingerprint, tuple("0123456789"), 60_000)


def test_the_label_spells_the_channels_and_all_modes_are_there():
    source = stacked_mnist("train", digits())
    assert source.size == 128_000 and len(source.class_names) == 1000
    images, labels = source.read(np.arange(source.size), (2, 3, 3))
    spelled = images.astype(int) @ [100, 10, 1]
    assert images.shape == (source.size, 2, 3, 3)
    np.testing.assert_array_equal(spelled, np.broadcast_to(labels[:, None, None], spelled.shape))
    counts = np.bincount(labels, minlength=1000)
    # Uniform: chi-square of 999 degrees of freedom has deviation sqrt(2 * 999).
    chi = ((counts - 128) ** 2 / 128).sum()
    assert abs(chi - 999) < 5 * np.sqrt(2 * 999)
    names = [source.class_names[label] for label in labels[:3]]
    assert names == [f"{label:03d}" for label in labels[:3]]


def test_an_example_is_a_function_of_its_place_and_splits_differ():
    train, test = (stacked_mnist(split, digits()) for split in SIZES)
    index = np.array([5, 127_999, 0])
    whole = train.read(np.arange(train.size), (1, 1, 3))[0]
    np.testing.assert_array_equal(train.read(index, (1, 1, 3))[0], whole[index])
    assert (test.read(np.arange(100), (1, 1, 3))[0] != whole[:100]).any()


def test_what_changes_mnist_changes_it():
    a, b = (stacked_mnist("train", digits(f)) for f in ("abc", "abd"))
    assert a.fingerprint != b.fingerprint


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="3 channels"):
        stacked_mnist("train", digits()).read([0], (28, 28, 1))
    with pytest.raises(UserError, match="splits train and test, not 'validation'"):
        stacked_mnist("validation", digits())
    with pytest.raises(UserError, match="prepare it with: .*data.name=mnist"):
        find_source("stacked_mnist", "train", str(tmp_path))
