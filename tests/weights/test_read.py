"""Reading weights: correct files are read, hostile or damaged ones refused in one line."""

import json
import os
import pickle  # only to make hostile files
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from genjax import archives
from genjax.errors import UserError
from genjax.weights import pickle_program, read
from genjax.weights.read import read_arrays
from tests import torch_files as tf


def safetensors(arrays, **changes):
    """Bytes of a safetensors file; `changes` replace parts of the first entry."""
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    header[next(iter(arrays))] |= changes
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


FORMATS = {
    "zip": tf.torch_zip,
    "legacy": tf.torch_legacy,
    "safetensors": safetensors,
    "npz": tf.npz,
}
ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1),
    "a.bias": np.array([1.5, -2.5]),
    "b.half": np.array([0.5], np.float16),
    "b.count": np.array(7, np.int64),
    "c.flag": np.array([True, False]),
}


@pytest.fixture
def refused(tmp_path):
    """A function that returns the one line with which a file of some bytes is refused."""

    def reason(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            read_arrays(path)
        message = str(error.value)
        assert "\n" not in message and str(path) in message and len(message) < 600
        return message

    return reason


def traced_peak(function, *arguments):
    """Returns the most bytes that were allocated at a time while a function ran."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_written_comes_back(kind, tmp_path):
    path = tmp_path / "any.name"  # the contents tell the kind
    path.write_bytes(FORMATS[kind](ARRAYS))
    arrays, sha256 = read_arrays(path)
    assert list(arrays) == list(ARRAYS) and len(sha256) == 64
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
        assert not arrays[name].flags.writeable


def test_views_of_one_storage_and_module_versions(tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    entries = {
        "transposed": tf.tensor("0", "Float", 12, (4, 3), (1, 4)),
        "part": tf.tensor("0", "Float", 12, (2, 2), (2, 1), offset=8),
        "empty": tf.tensor("0", "Float", 12, (0,), (1,), offset=12),
    }
    # OrderedDict._metadata, as state_dict() leaves it: {"": {"version": 1}}
    versions = b"}" + tf.text("_metadata") + b"}" + tf.text("") + b"}" + tf.text("version")
    program = tf.program(entries)[:-1] + versions + b"K\x01ssub."
    program = program.replace(b"ssub.", b"sssb.")
    path = tmp_path / "a.pth"
    path.write_bytes(tf.zip_of({"x/data.pkl": program, "x/data/0": numbers.tobytes()}))
    arrays, _ = read_arrays(path)
    np.testing.assert_array_equal(arrays["transposed"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(arrays["part"], numbers[8:].reshape(2, 2))
    assert arrays["empty"].shape == (0,)


# --- programs that would do something ---


class Command:
    """Pickles into a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def hostile_programs(marker):
    command = f"touch {marker}"
    word = tf.text(command)
    name = command.encode()
    yield from (pickle.dumps(Command(command), protocol) for protocol in range(6))
    yield pickle.dumps({"a": Command(command)}, 2)
    yield b"\x80\x02cposix\nsystem\n" + word + b"\x85R."
    yield b"\x80\x02cos\nsystem\n(" + word + b"tR."
    yield b"\x80\x02c__builtin__\neval\n" + word + b"\x85R."
    yield b"\x80\x02cbuiltins\nexec\n" + word + b"\x85R."
    yield b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + word + b"\x85R."  # STACK_GLOBAL
    yield b"\x80\x02(S'" + name + b"'\niposix\nsystem\n."  # INST
    yield b"\x80\x02(cposix\nsystem\n" + word + b"o."  # OBJ
    yield b"\x80\x02cposix\nsystem\n" + word + b"\x85\x81."  # NEWOBJ
    yield b"\x80\x02\x82\x01)R."  # EXT1
    yield b"\x80\x02P" + name + b"\n."  # PERSID
    yield b"\x80\x02csubprocess\nPopen\n" + word + b"\x85R."
    yield b"\x80\x02ctorch\nload\n" + word + b"\x85R."
    yield b"\x80\x02ccollections\nOrderedDict.fromkeys\n" + word + b"\x85R."
    yield b"\x80\x02ccollections\nOrderedDict\n" + word + b"\x85R."
    yield b"\x80\x02ctorch\nFloatStorage\n" + word + b"\x85R."
    yield b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + word + b"\x85R."
    yield b"\x80\x02ccollections\nOrderedDict\n}" + tf.text("__class__") + word + b"sb."
    yield b"\x80\x02" + word + b"Q."


def test_programs_are_not_run(refused, tmp_path):
    marker = tmp_path / "marker"
    programs = list(hostile_programs(marker))
    assert len(programs) == 25
    for program in programs:
        for data in (
            program,
            tf.zip_of({"a/data.pkl": program}),
            tf.zip_of({"a/data.pkl": tf.program({"x": program[2:-1]})}),  # inside of a dict
            tf.LEGACY_HEAD[:15] + program,
            tf.LEGACY_HEAD + program,
            tf.LEGACY_HEAD + tf.program({}) + program,
        ):
            refused(data)
            assert not marker.exists()
    pickle.loads(programs[2])
    assert marker.exists()  # so this test would have noticed


def test_arrays_of_objects_are_not_unpickled(refused, tmp_path):
    marker = tmp_path / "marker"
    objects = np.array([Command(f"touch {marker}")], dtype=object)
    assert "not an array of numbers" in refused(tf.npz({"a": objects}))
    assert not marker.exists()


def test_what_cannot_be_hashed_in_time_is_not_hashed(refused):
    # t = (t, t), 100 times: hashing, comparing or printing it would visit 2**100 leaves.
    deep = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 100
    for end in (b"}h\x00Ns.", b"h\x00Q.", b".", b"h\x00)R.", b"cposix\nsystem\nh\x00R."):
        refused(tf.zip_of({"a/data.pkl": deep + end}))


def test_a_program_without_end(refused, monkeypatch):
    monkeypatch.setattr(pickle_program, "MAX_PROGRAM", 2**14)  # 2**20 take a minute, type-checked
    messages = []
    for body in (b"}" * 10**7, tf.text("x" * 2**24) + b"N."):
        data = tf.zip_of({"a/data.pkl": b"\x80\x02" + body})
        assert traced_peak(lambda data: messages.append(refused(data)), data) < 2**27
    assert all("too long" in x for x in messages) and len(messages) == 2


def test_names_in_a_file_cannot_spoil_the_message(refused):
    message = refused(
        tf.zip_of({"a/data.pkl": b"\x80\x02cos\x1b[31m\nsys" + b"x" * 10**5 + b"\n."})
    )
    assert "\x1b" not in message


# --- files that lie about sizes ---


def zip_of_tensor(content=bytes(48), **tensor):
    fields = {"storage": "Float", "size": 12, "shape": (3, 4), "strides": (4, 1)} | tensor
    program = tf.program({"x": tf.tensor("0", **fields)})
    return tf.zip_of({"a/data.pkl": program, "a/data/0": content})


def overlapping_zip():
    """Two members of 40 kB in the bytes of one."""
    data = tf.zip_of({"a/data.pkl": bytes(40_000)})
    directory = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry = data[directory:end]
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), directory, 0)
    return data[:directory] + entry + entry.replace(b"data.pkl", b"data.pkm") + tail


LIES = {
    "shape past the storage": lambda: zip_of_tensor(shape=(4, 4)),
    "offset past the storage": lambda: zip_of_tensor(offset=1),
    "strides past the storage": lambda: zip_of_tensor(strides=(8, 1)),
    "one element a trillion times": lambda: zip_of_tensor(shape=(10**6, 10**6), strides=(0, 0)),
    "huge numbers": lambda: zip_of_tensor(shape=(2**200, 0), strides=(2**200, 2**200)),
    "huge stride of one element": lambda: zip_of_tensor(shape=(1,), strides=(2**70,)),
    "negative stride": lambda: zip_of_tensor(strides=(-4, 1)),
    "negative offset": lambda: zip_of_tensor(offset=-1),
    "negative shape": lambda: zip_of_tensor(shape=(-3, -4)),
    "more axes than strides": lambda: zip_of_tensor(shape=(3, 4, 1)),
    "storage larger than its bytes": lambda: zip_of_tensor(size=2**40),
    "storage smaller than its bytes": lambda: zip_of_tensor(size=2),
    "storage of another type": lambda: zip_of_tensor(storage="Long"),
    "storage of no type": lambda: zip_of_tensor(storage="Untyped"),
    "no storage": lambda: tf.zip_of(
        {"a/data.pkl": tf.program({"x": tf.tensor_of("0", ARRAYS["a.bias"])})}
    ),
    "no tensor": lambda: tf.zip_of({"a/data.pkl": tf.program({"x": b"K\x01"})}),
    "no dict": lambda: tf.zip_of({"a/data.pkl": b"\x80\x02]."}),
    "no program": lambda: tf.zip_of({"a/data/0": b""}),
    "two programs": lambda: tf.zip_of({"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."}),
    "big-endian": lambda: tf.zip_of({"a/data.pkl": tf.program({}), "a/byteorder": "big"}),
    "zip bomb": lambda: tf.zip_of({"a/data.pkl": bytes(10**8)}, compression=zipfile.ZIP_DEFLATED),
    "zip of 30,000 members": lambda: tf.zip_of({str(i): b"" for i in range(30_000)}),
    "overlapping members": overlapping_zip,
    "legacy, storage of 2**40": lambda: tf.torch_legacy({"x": np.zeros(3)}).replace(
        struct.pack("<q", 3), struct.pack("<q", 2**40)
    ),
    "legacy, storage of -2": lambda: tf.torch_legacy({"x": np.zeros(3)}).replace(
        struct.pack("<q", 3), struct.pack("<q", -2)
    ),
    "legacy, bytes behind the end": lambda: tf.torch_legacy(ARRAYS) + b"\0",
    "legacy, big-endian": lambda: tf.torch_legacy(ARRAYS).replace(b"\x88u.", b"\x89u.", 1),
    "safetensors, past the end": lambda: safetensors(ARRAYS, data_offsets=[0, 10**12]),
    "safetensors, before the start": lambda: safetensors(ARRAYS, data_offsets=[-96, 0]),
    "safetensors, backwards": lambda: safetensors(ARRAYS, data_offsets=[96, 0]),
    "safetensors, huge shape": lambda: safetensors(ARRAYS, shape=[2**40, 2**40]),
    "safetensors, huge empty shape": lambda: safetensors(
        ARRAYS, shape=[0, 2**70], data_offsets=[0, 0]
    ),
    "safetensors, shape of text": lambda: safetensors(ARRAYS, shape=["24"]),
    "safetensors, unknown type": lambda: safetensors(ARRAYS, dtype="F4"),
    "safetensors, huge header": lambda: struct.pack("<Q", 2**63) + b"{}",
    "safetensors, list": lambda: struct.pack("<Q", 10) + b'{"a": [1]}',
    "safetensors, deep": lambda: struct.pack("<Q", 10**5) + b'{"a":' + b"[" * 10**5,
    "npz, huge shape": lambda: tf.npz(ARRAYS).replace(b"(2, 3, 4, 1)", b"(2, 3, 4, 9)"),
    "npz bomb": lambda: tf.zip_of({"a.npy": bytes(10**8)}, compression=zipfile.ZIP_DEFLATED),
    "npy of no type": lambda: tf.npz(ARRAYS).replace(b"<f4", b"<f1"),
    "npy of version 9": lambda: tf.zip_of({"a.npy": b"\x93NUMPY\x09\x00" + bytes(99)}),
    "nothing": lambda: b"",
    "a web page": lambda: b"<!DOCTYPE html>\n<html></html>",
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_in_bounded_memory(lie, refused):
    data = LIES[lie]()
    assert traced_peak(refused, data) < 4 * len(data) + 2**20


# --- files that are damaged ---


@pytest.mark.parametrize("kind", FORMATS)
def test_every_truncation_is_refused(kind, refused):
    data = FORMATS[kind](ARRAYS)
    for length in {*range(0, len(data), 7), *range(len(data) - 40, len(data))}:
        refused(data[:length])


def damaged(data, rng):
    data = bytearray(data)
    for position in rng.integers(0, len(data), rng.integers(1, 6)):
        data[position] = rng.integers(256)
    if rng.random() < 0.3:  # a piece put somewhere else
        a, b, c = rng.integers(0, len(data), 3)
        data[a:b] = data[b:c]
    return bytes(data)


def test_damaged_programs_in_whole_archives(tmp_path):
    members = archives.read_stored_zip(tf.torch_zip(ARRAYS))
    path, rng, refusals = tmp_path / "weights", np.random.default_rng(0), 0
    for _ in range(400):
        path.write_bytes(tf.zip_of(members | {"a/data.pkl": damaged(members["a/data.pkl"], rng)}))
        try:
            arrays, _ = read_arrays(path)
        except UserError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert refusals > 200


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_give_arrays_or_one_line(kind, tmp_path):
    data, rng = FORMATS[kind](ARRAYS), np.random.default_rng(0)
    path, refusals = tmp_path / "weights", 0
    for _ in range(400):
        path.write_bytes(damaged(data, rng))
        try:
            arrays, _ = read_arrays(path)
        except UserError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
            assert sum(array.nbytes for array in arrays.values()) <= 2 * len(data)
    assert refusals > 200


# --- files that are not there ---


def test_no_file_a_folder_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="no file of weights"):
            read_arrays(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.pth"
    with path.open("wb") as stream:
        stream.truncate(read.MAX_BYTES + 1)  # of holes
    with pytest.raises(UserError, match="too large"):
        read_arrays(path)
