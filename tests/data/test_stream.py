"""Streamed data gives the same batches as data in memory, for any number of workers."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genjax.data import dataset as ds
from genjax.data import stream
from genjax.data.source import Source
from genjax.data.sources import find_source
from genjax.data.stream import _of_worker
from genjax.errors import UserError

SHAPE = (6, 5, 3)
# By the number of workers: consecutive steps, jumps, a repetition. A jump starts new processes.
STEPS = {0: [0, 1, 2, 3, 10**8, 10**8 + 1, 2, 3, 3], 1: [1, 2, 10**8], 3: [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(23):
        path = root / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7 + i, 3), dtype=np.uint8)).save(path)
    (root / "a" / "broken.png").write_bytes(b"")
    return root


def load(folder, loader):
    return ds.load_dataset(
        find_source(f"folder:{folder}", "train"), SHAPE, loader=loader, bad_images="skip"
    )


def assert_same(batch, expected, rows=slice(None)):
    assert batch.keys() == expected.keys()
    for key, value in expected.items():
        assert batch[key].dtype == value.dtype and type(batch[key]) is np.ndarray
        np.testing.assert_array_equal(batch[key], value if key == "mask" else value[rows])


def workers():
    return [p for p in multiprocessing.active_children() if "grain" in p.name]


def test_the_two_loaders_look_alike(folder):
    array, streamed = load(folder, "array"), load(folder, "grain")
    assert len(array) == len(streamed) == 20
    for name in ("name", "split", "image_shape", "class_names", "skipped"):
        assert getattr(array, name) == getattr(streamed, name), name
    assert streamed.fingerprint == load(folder, "grain").fingerprint
    other = ds.load_dataset(
        find_source(f"folder:{folder}", "train"), (6, 6, 3), loader="grain", bad_images="skip"
    )
    assert streamed.fingerprint != other.fingerprint


@pytest.mark.parametrize("num_workers", STEPS)
def test_any_number_of_workers_gives_the_batches_of_the_array(folder, num_workers):
    array, streamed = load(folder, "array"), load(folder, "grain")
    expected = ds.train_batches(array, 8, seed=5)
    rows = slice(2 * num_workers, 2 * num_workers + 2)
    batch_at = ds.train_batches(streamed, 8, seed=5, rows=rows, num_workers=num_workers)
    for step in STEPS[num_workers]:
        assert_same(batch_at(step), expected(step), rows)
    assert len(workers()) == num_workers
    batch_at.close()
    assert not workers()


@pytest.mark.parametrize("rows", [slice(None), slice(0, 4), slice(4, 8), slice(3, 4)])
def test_any_rows(folder, rows):
    array, streamed = load(folder, "array"), load(folder, "grain")
    expected = ds.train_batches(array, 8, seed=0)
    batch_at = ds.train_batches(streamed, 8, seed=0, rows=rows, stop=3)
    for step in range(5):  # the last ones beyond `stop`
        assert_same(batch_at(step), expected(step), rows)
    batch_at.close()
    pairs = zip(ds.eval_batches(streamed, 8, rows), ds.eval_batches(array, 8), strict=True)
    for batch, whole in pairs:
        assert_same(batch, whole, rows)


class Recording(Source):
    """Records which examples are read, in this process."""

    def __init__(self, size):
        super().__init__("recording", "0", "train", "", (), size)
        object.__setattr__(self, "positions", [])

    def read(self, index, image_shape):
        self.positions.extend(np.asarray(index).tolist())
        return np.zeros((len(index), *image_shape), np.uint8), np.zeros(len(index), np.int32)


def test_only_the_rows_asked_for_are_read_and_nothing_beyond_the_end():
    source = Recording(1000)
    data = ds.load_dataset(source, SHAPE, loader="grain")
    batch_at = ds.train_batches(data, 100, seed=0, rows=slice(10, 20), stop=4)
    wanted = [i for step in range(4) for i in batch_at(step)["index"].tolist()]
    batch_at.close()
    assert sorted(source.positions) == sorted(wanted) and len(wanted) == 40


def test_steps_in_turn_are_read_once_each():
    source = Recording(1000)
    data = ds.load_dataset(source, SHAPE, loader="grain")
    batch_at = ds.train_batches(data, 10, seed=0, stop=50)
    for step in range(50):
        batch_at(step)
    assert (
        sorted(source.positions) == sorted(set(source.positions)) and len(source.positions) == 500
    )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_picture_stops_with_its_path(folder, num_workers):
    data = ds.load_dataset(find_source(f"folder:{folder}", "train"), SHAPE, loader="grain")
    batch_at = ds.train_batches(data, 8, seed=0, num_workers=num_workers)
    for _ in range(2 if num_workers == 0 else 1):  # a second attempt fails, too
        with pytest.raises(UserError) as error:
            for step in range(3):  # an epoch
                batch_at(step)
        assert str(folder / "a" / "broken.png") in str(error.value)
        assert "the file is empty" in str(error.value) and "\n" not in str(error.value)
    assert not workers()
    batch_at.close()
    with pytest.raises(UserError, match="broken.png"):
        list(ds.eval_batches(data, 8))


def test_a_killed_worker_is_an_error_and_not_a_wait(folder):
    array, streamed = load(folder, "array"), load(folder, "grain")
    batch_at = ds.train_batches(streamed, 8, seed=0, num_workers=2)
    batch_at(0)
    workers()[0].kill()
    with pytest.raises(UserError) as error:
        for step in range(1, 100):
            batch_at(step)
    assert "worker died" in str(error.value) and "exit code -9" in str(error.value)
    assert "\n" not in str(error.value) and not workers()
    expected = ds.train_batches(array, 8, seed=0)
    assert_same(batch_at(7), expected(7))  # a later call starts new workers
    batch_at.close()
    assert not workers()


@pytest.mark.parametrize(
    "code, says", [(-7, "/dev/shm is full"), (-9, "out of memory"), (1, "out of memory")]
)
def test_how_a_worker_died_says_what_to_do(code, says):
    text = f"Worker process 1 was terminated unexpectedly with exit code {code}. Probably"
    message = _of_worker(text, 5)
    assert says in message and f"exit code {code}" in message and "step 5" in message


PROGRAM = """
import os, sys
from genjax.data import dataset as ds
from genjax.data.sources import find_source

if __name__ == "__main__":
    source = find_source("folder:" + sys.argv[1], "train")
    data = ds.load_dataset(source, (6, 5, 3), loader="grain", bad_images="skip")
    batch_at = ds.train_batches(data, 8, seed=0, num_workers=1)
    for step in range(2):
        batch_at(step)
    import multiprocessing
    print(*[p.pid for p in multiprocessing.active_children()], flush=True)
    if sys.argv[2] == "close":
        batch_at.close()
    if sys.argv[2] == "exit":
        sys.exit(3)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
"""


def alive(pid):
    """Tells whether a process runs; a zombie does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("end,code", [("close", 0), ("exit", 3), ("kill", -9)])
def test_no_end_of_the_run_leaves_workers_or_noise(folder, tmp_path, end, code):
    load(folder, "grain")  # the scan is not part of the noise
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(folder), end],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # returns when the last of its workers has closed stderr
    assert done.returncode == code, done.stderr
    assert not alive(int(done.stdout))
    said = [line for line in done.stderr.splitlines() if "broken.png" not in line]
    said = [line for line in said if "1 of 21 pictures" not in line]
    if end != "kill":  # there Python's resource tracker reports that it cleans up
        assert not said


def test_a_worker_cannot_take_the_accelerator():
    program = """
import jax
from genjax.data import stream
stream._end_with_parent = lambda: None  # it has no parent
stream._set_up_worker(0, 1)
import os
print(jax.config.jax_platforms, os.environ["JAX_PLATFORMS"], os.environ["CUDA_VISIBLE_DEVICES"])
"""
    env = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.split() == ["cpu", "cpu", "-1"], done.stderr


def test_reading_arrays_imports_neither_grain_nor_tfds(folder):
    program = """
import sys
from genjax.data import dataset as ds
from genjax.data.sources import find_source
data = ds.load_dataset(find_source("folder:" + sys.argv[1], "train"), (6, 5, 3), bad_images="skip")
ds.train_batches(data, 4, 0)(0)
print([name for name in ("grain", "tensorflow_datasets", "jax") if name in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, env=env
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_what_is_sent_to_a_worker_is_small(folder):
    import cloudpickle

    data, order = load(folder, "grain"), ds.TrainOrder(20, 8, 0, slice(None))
    order(0)
    read = stream._Read(data, order)
    assert len(cloudpickle.dumps(read)) < 5000
    again = cloudpickle.loads(cloudpickle.dumps(read))
    assert_same(again(3), read(3))
