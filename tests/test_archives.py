"""The one policy for .npz files: all readers read what NumPy writes; the rest is refused."""

import io
import os
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from genjax import archives
from genjax.data.codes import read_codes
from genjax.data.npz import npz_source
from genjax.data.sources import find_source
from genjax.errors import UserError
from genjax.metrics import nets
from genjax.weights.read import read_arrays
from tests import torch_files as tf

SAVES = [np.savez, np.savez_compressed]
ARRAYS = {
    "c": np.arange(24.0).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "half": np.float16([[0.5, -1]]),
    "empty": np.zeros((0, 4), np.uint8),
    "scalar": np.int64(7),
    "flag": np.array([True, False]),
    "big_endian": np.arange(3, dtype=">i4"),
    "text": np.array(["x", "zé"]),
    "one_text": np.array('{"json": 1}'),
    "bytes": np.array([b"ab", b"c"]),
}


def saved(save, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def traced_peak(function, *arguments):
    """Returns the most bytes that were allocated at a time while a function ran."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("from_path", [True, False])
def test_all_that_numpy_writes_is_read(tmp_path, save, from_path):
    data = saved(save, **ARRAYS)
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    arrays = archives.read_npz(path if from_path else data)
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = arrays[name]
        assert array.dtype == expected.dtype.newbyteorder("=") and array.shape == expected.shape
        assert array.flags.f_contiguous == expected.flags.f_contiguous
        np.testing.assert_array_equal(array, expected)
        assert not array.flags.writeable
    some = archives.read_npz(data, names=("scalar", "absent"))
    assert list(some) == ["scalar"]


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), np.uint8)


def read_as_images(path):
    return npz_source(path, "train").images


def read_as_codes(path):
    return read_codes(f"codes:{path}")["images"]


def read_as_weights(path):
    return read_arrays(path)[0]["images"]


@pytest.mark.parametrize("read", [read_as_images, read_as_codes, read_as_weights])
def test_every_reader_has_the_policy(tmp_path, monkeypatch, read):
    path = tmp_path / "a.npz"
    for save in SAVES:
        save(path, images=IMAGES)
        np.testing.assert_array_equal(read(path), IMAGES)
    np.savez(path, images=IMAGES, more=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="'more' is not an array of numbers or text"):
        read(path)
    monkeypatch.setattr(archives, "MAX_EXPANDED", 2**20)
    np.savez_compressed(path, images=np.zeros((2**15, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match="expand to more than 1048576 bytes"):
        read(path)


def test_codes_and_nets_may_be_compressed(tmp_path):
    codes = np.random.default_rng(0).integers(0, 9, (6, 2, 2))
    np.savez_compressed(tmp_path / "a.npz", train=codes, test=codes[:2], num_codes=9)
    for split, expected in (("train", codes), ("test", codes[:2])):
        source = find_source(f"codes:{tmp_path}/a.npz", split)
        images, _ = source.read(range(source.size), (2, 2, 1))
        np.testing.assert_array_equal(images[..., 0], expected)
    pinned = np.load(nets._FOLDER / "cnn_digits.npz", allow_pickle=False)
    np.savez_compressed(tmp_path / "net.npz", **pinned)
    net = nets.load_net(str(tmp_path / "net.npz"))
    expected = nets.load_net("cnn_digits")
    assert net.image_shape == expected.image_shape and net.sha256 != expected.sha256


# --- sizes ---


def test_a_bomb_takes_no_memory(monkeypatch):
    data = saved(np.savez_compressed, a=np.zeros(2**26, np.uint8))
    assert len(data) < 2**17

    def refused():
        with pytest.raises(ValueError, match="expand to more than"):
            archives.read_npz(data)

    monkeypatch.setattr(archives, "MAX_EXPANDED", 2**25)
    assert traced_peak(refused) < 2**20
    monkeypatch.setattr(archives, "MAX_EXPANDED", 2**27)
    assert archives.read_npz(data)["a"].nbytes == 2**26


def test_what_is_as_large_as_its_file_is_no_bomb(monkeypatch):
    monkeypatch.setattr(archives, "MAX_EXPANDED", 10)
    assert archives.read_npz(saved(np.savez, a=np.zeros(1000)))["a"].shape == (1000,)


def with_sizes(data, compressed, expanded):
    """The archive of one member whose directory states these sizes; None leaves one as it is."""
    data, entry = bytearray(data), data.rindex(b"PK\x01\x02")
    for offset, size in ((20, compressed), (24, expanded)):
        if size is not None:
            struct.pack_into("<I", data, entry + offset, size)
    return bytes(data)


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("expanded", [0, 50, 1000, 8 * 4096 + 127, 8 * 4096 + 129, 2**31 - 10])
def test_a_stated_size_is_compared_with_the_contents(save, expanded):
    """Smaller sizes, too: NumPy's file of 4096 numbers has a header of 128 bytes."""
    data = with_sizes(saved(save, a=np.arange(4096.0)), None, expanded)

    def refused():
        with pytest.raises(ValueError, match="size|damaged|cut off|not an array|expand"):
            archives.read_npz(data)

    assert traced_peak(refused) < 2**20


def npy_of(shape, numbers):
    """A .npy file of float64 whose header has the text `shape`."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }" % shape
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117) + b"\n" + numbers


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_stated_shape_is_compared_with_the_contents(compression):
    def archive(shape):
        return tf.zip_of({"a.npy": npy_of(shape, bytes(64))}, compression=compression)

    assert archives.read_npz(archive(b"8,"))["a"].shape == (8,)
    for shape in (b"9,", b"99999999,", b"-8,", b"2**3,", b"8, 8", b"8, 0", b"", b"%d," % 10**30):
        with pytest.raises(ValueError, match="not an array|size"):
            archives.read_npz(archive(shape))


def test_sizes_that_agree_and_are_not_there_take_no_memory():
    """Header and directory state 1.6 GB; there are 100 kB."""
    content = npy_of(b"200000000,", bytes(10**5))
    data = tf.zip_of({"a.npy": content}, compression=zipfile.ZIP_DEFLATED)
    data = with_sizes(data, None, 128 + 8 * 200_000_000)

    def refused():
        with pytest.raises(ValueError, match="cut off|damaged"):
            archives.read_npz(data)

    assert traced_peak(refused) < 2**20


def test_overlapping_members_are_counted_as_often_as_they_are_listed(monkeypatch):
    monkeypatch.setattr(archives, "MAX_EXPANDED", 2**20)
    data = saved(np.savez_compressed, a=np.zeros(2**16))
    start, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entries = b"".join(data[start:end].replace(b"a.npy", b"%05d" % i) for i in range(100))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 100, 100, len(entries), start, 0)
    with pytest.raises(ValueError, match="overlap or expand"):
        archives.read_npz(data[:start] + entries + tail)


def test_too_many_members():
    data = tf.zip_of({f"{i}.npy": b"" for i in range(30_000)})

    def refused():
        for read in (archives.read_npz, archives.member_names, archives.read_stored_zip):
            with pytest.raises(ValueError, match="too many members"):
                read(data)

    assert traced_peak(refused) < 2**20 + len(data)


# --- other contents ---


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def structured():
    return npy(np.zeros(3, [("x", "f4"), ("y", "i4")]))


def not_unicode():
    data = bytearray(npy(np.array(["ab", "cd"])))
    data[-1] = 0xFF
    return bytes(data)


OTHERS = {
    "bzip2": lambda: tf.zip_of({"a.npy": npy(IMAGES)}, compression=zipfile.ZIP_BZIP2),
    "lzma": lambda: tf.zip_of({"a.npy": npy(IMAGES)}, compression=zipfile.ZIP_LZMA),
    "no array": lambda: tf.zip_of({"a.npy": npy(IMAGES), "README": b"text"}),
    "objects": lambda: saved(np.savez, a=np.array([{}], dtype=object)),
    "structured": lambda: tf.zip_of({"a.npy": structured()}),
    "complex": lambda: saved(np.savez, a=np.array([1j])),
    "dates": lambda: saved(np.savez, a=np.array(["2020-01-01"], "datetime64[D]")),
    "not Unicode": lambda: tf.zip_of({"a.npy": not_unicode()}),
    "code in a header": lambda: tf.zip_of({"a.npy": npy(IMAGES).replace(b"False", b"exit()")}),
    "cut off": lambda: saved(np.savez, a=IMAGES)[:-30],
    "nothing": lambda: b"",
    "text": lambda: b"hello",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_contents_are_refused(kind):
    with pytest.raises(ValueError) as error:
        archives.read_npz(OTHERS[kind]())
    assert "\n" not in str(error.value)


def test_a_name_that_occurs_twice():
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stream, "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", npy(IMAGES))
    for read in (archives.read_npz, archives.read_stored_zip):
        with pytest.raises(ValueError, match="'a.npy'"):
            read(stream.getvalue())


def test_an_encrypted_member():
    data = bytearray(saved(np.savez, a=IMAGES))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    with pytest.raises(ValueError, match="damaged .*encrypted"):
        archives.read_npz(bytes(data))


def test_errors_of_the_disk_are_not_errors_of_the_file(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(OSError):
            archives.read_npz(path)


@pytest.mark.parametrize("save", SAVES)
def test_damaged_archives_give_the_same_arrays_or_a_value_error(tmp_path, save):
    data, rng, refusals = saved(save, a=IMAGES, b=np.array(["x"])), np.random.default_rng(0), 0
    path = tmp_path / "a.npz"
    for _ in range(400):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        for file in (bytes(damaged), path):
            try:
                arrays = archives.read_npz(file)
            except ValueError:
                refusals += 1
            else:
                for name, array in arrays.items():
                    if name == "a":
                        np.testing.assert_array_equal(array, IMAGES)
    assert refusals > 200
    assert len(os.listdir(tmp_path)) == 1
