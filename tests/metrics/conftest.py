import numpy as np
import pytest


@pytest.fixture
def rng():
    """The same numbers for a test whatever ran before it."""
    return np.random.default_rng(0)
