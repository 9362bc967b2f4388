import numpy as np
import pytest
from scipy import stats

from genjax.errors import UserError
from genjax.metrics.likelihood import (
    bits_per_dim_of_density,
    bits_per_dim_of_mass,
    nats_of_mass,
)

DIMS = 32 * 32 * 3
RANGES = [(0, 1), (-1, 1), (0, 256), (-0.5, 0.5)]


def test_a_uniform_model_of_masses_has_8_bits():
    assert bits_per_dim_of_mass(DIMS * np.log(256), DIMS) == pytest.approx(8.0)


@pytest.mark.parametrize("data_range", RANGES)
def test_a_uniform_density_has_8_bits_over_any_range(data_range):
    low, high = data_range
    nats = DIMS * np.log(high - low)  # density 1 / (high - low)
    bits = bits_per_dim_of_density(nats, DIMS, levels=256, data_range=data_range)
    assert bits == pytest.approx(8.0)


def test_a_density_that_is_flat_over_each_level_has_the_bits_of_its_masses():
    mass = stats.binom.pmf(np.arange(8), 7, 0.3)
    pixels = np.arange(8)
    width = 2 / 8
    density = mass[pixels] / width
    bits = bits_per_dim_of_density(-np.log(density), 1, levels=8, data_range=(-1, 1))
    np.testing.assert_allclose(bits, bits_per_dim_of_mass(-np.log(mass), 1), rtol=1e-12)


def test_bits_and_nats_are_inverse():
    nats = np.array([[100.0, -3.0], [7000.0, 0.0]])
    np.testing.assert_allclose(nats_of_mass(bits_per_dim_of_mass(nats, DIMS), DIMS), nats)


def test_the_kind_of_density_has_to_be_said():
    with pytest.raises(TypeError):
        bits_per_dim_of_density(1.0, DIMS)
    with pytest.raises(UserError, match="dims=0"):
        bits_per_dim_of_mass(1.0, 0)
    with pytest.raises(UserError, match="levels=1"):
        bits_per_dim_of_density(1.0, DIMS, levels=1, data_range=(0, 1))
    with pytest.raises(UserError, match="no width"):
        bits_per_dim_of_density(1.0, DIMS, levels=256, data_range=(1, 0))
