import numpy as np
import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of BLAS wait for one another on busy cores: 7 s for 0.2 s of small products."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def rng():
    """The same numbers for a test whatever ran before it."""
    return np.random.default_rng(0)
