"""HDF5 as Keras and h5py write it, intact and damaged."""

import io
import resource

import h5py
import numpy as np
import pytest

from genjax.errors import UserError
from genjax.weights.hdf5 import read_hdf5
from genjax.weights.read import read_arrays
from tests import hdf5_files


@pytest.mark.parametrize("which,pattern", [(0, "{0}/{0}_{1}_1:0"), (1, "{0}/{0}/{2}:0")])
def test_what_h5py_wrote(which, pattern):
    data = (hdf5_files.OLD, hdf5_files.NEW)[which]
    found = read_hdf5(data)
    expected = {
        pattern.format(layer, "W" if kind == "kernel" else "b", kind): array
        for (layer, kind), array in hdf5_files.drawn()[which].items()
    }
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable


def written(write, **options):
    """Bytes of a file that h5py writes: `write` is called with the open file."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        write(file)
    return stream.getvalue()


def datasets(data):
    """{path: array} of all datasets as h5py reads them."""
    arrays = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def test_what_this_h5py_writes_is_read_as_it_reads_it():
    """Groups in groups, and one whose 700 names need two levels of B-tree nodes."""
    rng = np.random.default_rng(0)

    def write(file):
        file.attrs["backend"] = "tensorflow"
        for dtype in ("f2", "f4", "f8"):
            file[f"a/{dtype}/weights"] = rng.normal(size=(3, 4, 2)).astype(dtype)
        file["scalar"] = np.float32(3)
        group = file.create_group("many")
        group.attrs["weight_names"] = np.array([b"x", b"yz"])
        for i in range(700):
            group[f"layer_{i}"] = np.float32([i])
        file.create_group("none")

    data = written(write)
    expected, arrays = datasets(data), read_hdf5(data)
    assert set(arrays) == set(expected) and len(arrays) == 704
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_types_that_are_not_floats_are_empty():
    def write(file):
        file["text"] = "hello"
        file["counts"] = np.arange(3)
        file["big"] = np.arange(3, dtype=">f4")

    arrays = read_hdf5(written(write))
    assert {name: array.size for name, array in arrays.items()} == dict.fromkeys(arrays, 0)


@pytest.mark.parametrize(
    "options,storage",
    [
        ({"libver": "latest"}, {}),
        ({}, {"chunks": (2, 3)}),
        ({}, {"compression": "gzip"}),
        ({}, {"shape": (6, 4), "dtype": "f4", "data": None}),  # never written: without an address
    ],
)
def test_other_parts_of_the_format_are_refused(options, storage):
    data = {"data": np.ones((6, 4), np.float32), **storage}
    with pytest.raises(ValueError, match="kind|pieces|size"):
        read_hdf5(written(lambda file: file.create_dataset("a", **data), **options))


def test_through_the_reader_of_any_file(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(hdf5_files.OLD)
    arrays, sha256 = read_arrays(path)
    assert len(arrays) == 4 and len(sha256) == 64
    path.write_bytes(hdf5_files.OLD[:5000])
    with pytest.raises(UserError, match="cannot read the weights .*h5: "):
        read_arrays(path)


def test_damaged_files_end_in_a_value_error_and_cost_little():
    data = hdf5_files.OLD
    rng = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    trials = [data[:n] for n in range(0, len(data), 97)]
    for _ in range(3000):
        bad = bytearray(data)
        for place in rng.integers(0, len(bad), rng.integers(1, 4)):
            bad[place] = rng.integers(256)
        trials.append(bytes(bad))
    for bad in trials:
        try:
            arrays = read_hdf5(bad)
            outcomes["read"] += 1
            assert sum(a.nbytes for a in arrays.values()) <= 2 * len(data)
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100, outcomes
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50_000  # kilobytes


def test_a_group_that_holds_itself():
    data = bytearray(hdf5_files.OLD)
    root = data[64:72]
    place = data.index(b"SNOD") + 8 + 8  # where the first entry points to
    data[place : place + 8] = root
    with pytest.raises(ValueError, match="circle"):
        read_hdf5(bytes(data))
