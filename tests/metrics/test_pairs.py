import numpy as np
import pytest

from genjax.metrics import arrays, pairs


class Collect:
    """Writes what it is shown into matrices of all pairs."""

    def __init__(self, m, n):
        self.squares = {
            (0, 0): np.zeros((m, m)),
            (1, 1): np.zeros((n, n)),
            (0, 1): np.zeros((m, n)),
        }
        self.times = {key: np.zeros(x.shape, int) for key, x in self.squares.items()}
        self.elements = 0

    def _put(self, key, tile):
        self.elements += tile.products.size
        self.squares[key][tile.rows, tile.columns] = tile.squared_distances
        self.times[key][tile.rows, tile.columns] += 1
        if tile.mirrored:
            self.squares[key][tile.columns, tile.rows] = tile.squared_distances.T
            self.times[key][tile.columns, tile.rows] += 1

    def within(self, which, tile):
        self._put((which, which), tile)

    def between(self, tile):
        self._put((0, 1), tile)

    def values(self):
        return ()


@pytest.mark.parametrize("block_elements", [2**20, 100, 1])
def test_every_pair_comes_once_with_its_distance(rng, monkeypatch, block_elements):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", block_elements)
    x, y = rng.normal(10, 1, (33, 13)), rng.normal(10, 1, (41, 13))
    y[:20] = x[:20]  # at distance 0, exactly
    seen = Collect(33, 41)
    pairs.visit_pairs(x, y, [seen])
    sets = (x, y)
    for (a, b), squares in seen.squares.items():
        expected = np.square(sets[a][:, None] - sets[b]).sum(axis=2)
        np.testing.assert_allclose(squares, expected, rtol=1e-9)
        np.testing.assert_array_equal(squares == 0, expected == 0)
        np.testing.assert_array_equal(seen.times[a, b], 1)


def test_the_products_of_a_set_with_itself_are_computed_once(rng, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 100)
    seen = Collect(200, 200)
    pairs.visit_pairs(*rng.normal(size=(2, 200, 3)), [seen])
    assert seen.elements == 2 * (200 * 210 // 2) + 200 * 200


def test_integers_do_not_overflow():
    x, y = np.array([[0, 255]], np.uint8), np.array([[255, 0]], np.uint8)
    (tile,) = pairs.tiles(x, y, pairs.squared_norms(x), pairs.squared_norms(y))
    np.testing.assert_array_equal(tile.squared_distances, [[2 * 255**2]])
