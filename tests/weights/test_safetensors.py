"""Safetensors, read and written as the library that defines the format does."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
from safetensors import safe_open

from genjax.errors import UserError
from genjax.weights.formats import DTYPES, read_safetensors
from genjax.weights.read import read_arrays
from genjax.weights.write import write_safetensors


def arrays_of_all_types():
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (3, 2)).astype(dtype) for name, dtype in DTYPES.items()}
    arrays |= {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3), np.float32)}
    special = np.array([0, -0.0, 1 / 3, 3e38, -np.inf, np.nan], np.float32)
    return arrays | {"special": special.astype(ml_dtypes.bfloat16)}


def assert_same(arrays, expected):
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        other = np.asarray(arrays[name])
        assert other.dtype == array.dtype and other.shape == array.shape, name
        assert other.tobytes() == array.tobytes(), name


def test_what_the_library_writes_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    expected = arrays_of_all_types()
    safetensors.numpy.save_file(expected, path, metadata={"format": "np"})
    arrays, _ = read_arrays(path)
    assert_same(arrays, expected)
    assert not any(array.flags.writeable for array in arrays.values())
    assert_same(read_safetensors(safetensors.numpy.save({})), {})


def test_what_is_written_the_library_reads(tmp_path):
    path = tmp_path / "a.safetensors"
    expected = arrays_of_all_types()
    write_safetensors(path, expected, {"made": "by a test"})
    assert_same(safetensors.numpy.load_file(path), expected)
    assert_same(read_arrays(path)[0], expected)
    with safe_open(path, "flax") as file:
        assert file.metadata() == {"made": "by a test"}


def test_bfloat16_of_jax_is_written_and_read(tmp_path):
    import jax.numpy as jnp

    path = tmp_path / "a.safetensors"
    params = {"layer": {"kernel": jnp.linspace(-3, 3, 12, dtype=jnp.bfloat16).reshape(3, 4)}}
    write_safetensors(path, params)
    kernel = params["layer"]["kernel"]
    (found,) = read_arrays(path)[0].values()
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), kernel.astype(jnp.float32))
    library = safetensors.flax.load_file(path)["layer.kernel"]
    assert library.dtype == jnp.bfloat16 and (library == kernel).all()


def test_bfloat16_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": np.ones((3, 4), ml_dtypes.bfloat16)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not one of a tensor in the file"):
        read_arrays(path)


def test_types_that_the_format_lacks_are_refused(tmp_path):
    for array in (np.complex64([1j]), np.array(["text"]), np.arange(3, dtype=">f4")):
        with pytest.raises(ValueError, match="'?a'? is of"):
            write_safetensors(tmp_path / "a.safetensors", {"a": array})
    assert not list(tmp_path.iterdir())
