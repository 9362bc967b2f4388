import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import arrays


def test_blocks_cover_every_row_once_and_stay_small(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 100)
    blocks = [range(40)[b] for b in arrays.row_blocks(40, 30)]
    assert [i for b in blocks for i in b] == list(range(40))
    assert {len(b) for b in blocks} == {3, 1}
    assert len(list(arrays.row_blocks(4, 1000))) == 4  # a row is never cut


def test_log_softmax_survives_large_logits():
    log_probs = arrays.log_softmax(np.float32([[1e30, 0], [-1e30, -1e30]]))
    np.testing.assert_array_equal(log_probs[0], [0, -np.float64(np.float32(1e30))])
    np.testing.assert_allclose(log_probs[1], np.log(0.5))


@pytest.mark.parametrize(
    "bad, says",
    [
        (np.zeros(3), r"must be numbers \[n, d\], got float64 \[3\]"),
        (np.zeros((3, 0)), r"got float64 \[3, 0\]"),
        (np.zeros((2, 2), complex), "complex128"),
        ([["a", "b"]], "must be numbers"),
        (np.float32([[0, 1], [np.nan, 0], [0, np.inf]]), "2 of 3 rows have NaN.* first is row 1"),
        (np.zeros((1, 2)), "1 rows are too few, at least 2 are needed"),
    ],
)
def test_bad_features_are_told_in_one_line(bad, says):
    with pytest.raises(UserError, match=f"generated.*{says}") as told:
        arrays.as_features(bad, "generated", at_least=2)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", [[0.5], [[1]], [-1], [4]])
def test_bad_labels_are_told(bad):
    with pytest.raises(UserError, match="labels"):
        arrays.as_labels(bad, 4)
    assert arrays.as_labels(np.uint8([3]), 4).dtype == np.int64


@pytest.mark.parametrize("bad, row", [(np.nan, 3), (np.inf, 9), (-np.inf, 0)])
def test_bad_rows_are_named_in_any_block(bad, row, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 4)
    x = np.zeros((10, 2), np.float32)
    arrays.check_features(x, "x")
    x[row, 1] = bad
    with pytest.raises(UserError, match=f"x: 1 of 10 rows .* first is row {row}"):
        arrays.check_features(x, "x")


def test_features_are_not_copied():
    for dtype in (np.float32, np.uint8):
        x = np.ones((4, 3), dtype)
        assert np.shares_memory(arrays.check_features(x, "x"), x)


def test_a_sample_is_the_same_every_time_and_takes_all_classes():
    order = arrays.sample_order(1000)
    np.testing.assert_array_equal(order, arrays.sample_order(1000))
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    of_class = np.bincount(order[:200] // 100, minlength=10)  # of 10 classes, one after the other
    assert of_class.min() >= 10 and of_class.max() <= 32
