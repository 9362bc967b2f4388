import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import arrays
from genjax.metrics.neighbours import copying_rate, nearest_neighbours


@pytest.mark.parametrize("block_elements", [2**23, 100])
@pytest.mark.parametrize("k", [1, 2, 100, 300])
def test_neighbours_are_those_of_a_sort(rng, monkeypatch, block_elements, k):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", block_elements)
    queries, training = rng.normal(size=(23, 6)), rng.normal(size=(300, 6))
    all_distances = np.linalg.norm(queries[:, None] - training, axis=2)
    indices, distances = nearest_neighbours(queries, training, k)
    np.testing.assert_array_equal(indices, np.argsort(all_distances, axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(all_distances, axis=1)[:, :k], rtol=1e-12)


def test_distances_to_near_copies_are_not_rounded_away(rng):
    training = rng.normal(1000, 1, (20, 4))
    queries = training[[3, 5]] + np.array([[1e-9, 0, 0, 0], [0, 0, 0, 0]])
    indices, distances = nearest_neighbours(queries, training, 1)
    np.testing.assert_array_equal(indices, [[3], [5]])
    np.testing.assert_allclose(distances, [[1e-9], [0]], rtol=1e-3)


def test_copies_are_counted_and_held_out_images_are_the_baseline(rng):
    training, held_out = rng.normal(size=(300, 32)), rng.normal(size=(100, 32))
    assert copying_rate(held_out, training) == 0
    generated = held_out.copy()
    generated[:25] = training[:25] + 0.01 * rng.normal(size=(25, 32))
    assert copying_rate(generated, training) == 0.25
    assert copying_rate(training[:10], training) == 1


def test_a_third_is_the_limit():
    training = np.array([[0.0], [4.0]])
    queries = np.array([[0.99], [1.01], [3.01], [2.0]])  # 1 / 3 of the way is at 1 and at 3
    assert copying_rate(queries, training) == 0.5
    assert copying_rate(queries, training, ratio=0.99) == 0.75


def test_an_exact_copy_of_what_is_there_twice_is_a_copy():
    training = np.array([[0.0], [0.0], [9.0]])
    assert copying_rate(np.array([[0.0], [0.5]]), training) == 0.5


def test_pixels_of_8_bits_do_not_overflow():
    training = np.array([[0, 0], [255, 255]], np.uint8)
    _, distances = nearest_neighbours(np.array([[255, 0]], np.uint8), training)
    np.testing.assert_allclose(distances, [[255, 255]])


def test_bad_input_is_told(rng):
    x = rng.normal(size=(5, 3))
    with pytest.raises(UserError, match="training set: 1 rows are too few for 2 neighbours"):
        copying_rate(x, x[:1])
    with pytest.raises(UserError, match="queries and training set are in different spaces"):
        nearest_neighbours(x, x[:, :2])
    with pytest.raises(UserError, match="k=0"):
        nearest_neighbours(x, x, 0)
