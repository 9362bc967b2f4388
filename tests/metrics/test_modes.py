import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics.modes import mode_counts, modes_reached, reverse_kl, stacked_labels


def test_all_modes_equally_often_and_one_alone():
    even = mode_counts(np.arange(1000).repeat(3), 1000)
    assert modes_reached(even) == 1000 and reverse_kl(even) == pytest.approx(0, abs=1e-12)
    alone = mode_counts(np.full(50, 7), 1000)
    assert modes_reached(alone) == 1 and reverse_kl(alone) == pytest.approx(np.log(1000))
    half = mode_counts(np.arange(500), 1000)
    assert modes_reached(half) == 500 and reverse_kl(half) == pytest.approx(np.log(2))


def test_uneven_modes_by_hand_and_in_batches():
    counts = mode_counts([0, 0], 3) + mode_counts([2, 0], 3)
    np.testing.assert_array_equal(counts, [3, 0, 1])
    assert modes_reached(counts) == 2
    assert reverse_kl(counts) == pytest.approx(0.75 * np.log(2.25) + 0.25 * np.log(0.75))


def test_a_perfect_generator_has_the_floor_of_so_many_images(rng):
    kl = [reverse_kl(mode_counts(rng.integers(0, 1000, 26_000), 1000)) for _ in range(20)]
    assert abs(np.mean(kl) - 999 / 52_000) < 0.001


def test_stacked_digits_name_a_mode():
    np.testing.assert_array_equal(stacked_labels([[0, 0, 7], [9, 9, 9], [1, 2, 3]]), [7, 999, 123])


def test_bad_input_is_told():
    with pytest.raises(UserError, match="labels: 3 at 1 is not in 0 ... 2"):
        mode_counts([0, 3], 3)
    with pytest.raises(UserError, match="no labels"):
        reverse_kl(mode_counts(np.zeros(0, int), 3))
    with pytest.raises(UserError, match=r"must be \[n, 3\]"):
        stacked_labels([[1, 2]])
    with pytest.raises(UserError, match="digits: 10 at 4"):
        stacked_labels([[1, 2, 3], [4, 10, 6]])
