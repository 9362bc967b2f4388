"""The cache when its files are damaged, its processes killed, or its disk is full."""

import json
import multiprocessing
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from genjax.data import cache
from genjax.data import dataset as ds
from genjax.data.sources import find_source
from genjax.errors import UserError

SHAPE = (6, 5, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        image = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        image.save(tmp_path / "pictures" / f"{i:02d}.png")
    (tmp_path / "pictures" / "05.png").write_bytes(b"")
    return tmp_path / "pictures"


def load(pictures, loader="array"):
    source = find_source(f"folder:{pictures}", "train")
    return ds.load_dataset(source, SHAPE, loader=loader, bad_images="skip")


def everything(data):
    batch = data.batch(np.arange(len(data)), np.arange(len(data)))
    return {k: np.array(v) for k, v in batch.items()}, data.fingerprint, data.skipped


def assert_equal(a, b):
    assert a[1:] == b[1:]
    for key, value in a[0].items():
        np.testing.assert_array_equal(value, b[0][key])


def damage(path, fault):
    content = bytearray(path.read_bytes())
    if fault == "delete":
        path.unlink()
    elif fault == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "zero":
        path.write_bytes(bytes(len(content)))
    else:
        # In an array a value; in the JSON a letter of a name, so that it remains JSON.
        place = content.index(b"empty") if path.suffix == ".json" else len(content) - 1
        content[place] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("fault", ["flip", "truncate", "empty", "zero", "delete"])
@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json"])
def test_a_damaged_array_is_made_again_and_said(pictures, own_cache, capsys, name, fault):
    before = everything(load(pictures))
    (cached,) = (own_cache / "arrays").iterdir()
    damage(cached / name, fault)
    capsys.readouterr()
    assert_equal(everything(load(pictures)), before)
    said = capsys.readouterr().err
    assert "is damaged" in said and str(cached) in said and "decoding" in said
    assert_equal(everything(load(pictures)), before)
    assert "is damaged" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["flip", "truncate", "empty", "zero", "delete"])
def test_a_damaged_list_of_bad_pictures_is_made_again(pictures, own_cache, capsys, fault):
    before = everything(load(pictures, "grain"))
    (cached,) = (own_cache / "scans").iterdir()
    damage(cached / "meta.json", fault)
    capsys.readouterr()
    assert_equal(everything(load(pictures, "grain")), before)
    assert "is damaged" in capsys.readouterr().err


def test_any_flipped_bit_of_the_meta_is_found_or_harmless(pictures, own_cache):
    before = everything(load(pictures))
    (cached,) = (own_cache / "arrays").iterdir()
    good = (cached / "meta.json").read_bytes()
    meta = json.loads(good)
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        (cached / "meta.json").write_bytes(data)
        found = cache.verified(cached)
        assert found is None or found == meta["meta"]
    (cached / "meta.json").write_bytes(good)
    assert_equal(everything(load(pictures)), before)


def test_a_cache_that_cannot_be_written_can_be_read(pictures, own_cache, monkeypatch):
    before = everything(load(pictures))

    def no_lock(folder):
        raise AssertionError("nothing has to be written")

    monkeypatch.setattr(cache, "_locked", no_lock)
    assert_equal(everything(load(pictures)), before)


# --- several processes ---


def _load_and_report(pictures, start, queue):
    start.wait()
    queue.put(everything(load(pictures)))


def test_processes_that_decode_at_once_are_all_right(pictures, own_cache, capfd):
    context = multiprocessing.get_context("spawn")
    start, queue = context.Event(), context.Queue()
    arguments = (pictures, start, queue)
    processes = [context.Process(target=_load_and_report, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    for result in results:
        assert_equal(result, everything(load(pictures)))
    assert capfd.readouterr().err.count("decoding") == 1  # the others waited for it
    assert len(list((own_cache / "arrays").iterdir())) == 1


def _decode_slowly(pictures):
    read = ds._read

    def slow(*args):
        time.sleep(60)
        return read(*args)

    ds._read = slow
    load(pictures)


def _while_decoding(pictures, arrays):
    """Starts a process; returns it once it writes, and the folder that it writes into."""
    process = multiprocessing.get_context("spawn").Process(target=_decode_slowly, args=(pictures,))
    process.start()
    while not (found := list(arrays.glob(".*/images.npy"))):
        assert process.is_alive()
        time.sleep(0.01)
    return process, found[0].parent


def _kill(process):
    process.kill()
    process.join()


def test_what_a_killed_process_left_is_removed(pictures, own_cache, tmp_path):
    arrays = own_cache / "arrays"
    process, left = _while_decoding(pictures, arrays)
    _kill(process)
    assert left.exists()
    load(pictures)
    assert [p.name for p in arrays.iterdir()] == [left.name[1:].rpartition("-")[0]]


def test_only_what_no_living_process_writes_is_removed(pictures, own_cache, tmp_path):
    arrays = own_cache / "arrays"
    process, partial = _while_decoding(pictures, arrays)
    try:
        for copy, alive in (("first", True), ("second", False)):
            shutil.copytree(pictures, tmp_path / copy)
            if not alive:
                _kill(process)
            load(tmp_path / copy)
            assert partial.exists() == alive
    finally:
        _kill(process)


def test_without_locks_it_still_works(pictures, own_cache, monkeypatch):
    def no_locks(*args):
        raise OSError("No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    first = everything(load(pictures))
    partial = own_cache / "arrays" / ".other-abc"
    partial.mkdir()
    shutil.rmtree(next(p for p in (own_cache / "arrays").iterdir() if p != partial))
    assert_equal(everything(load(pictures)), first)
    assert partial.exists()  # a living process may own it


# --- no room, no permission ---


def message_of(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("loader", ["array", "grain"])
def test_a_cache_folder_that_cannot_be_made(pictures, tmp_path, monkeypatch, loader):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError) as error:
        load(pictures, loader)
    text = message_of(error)
    assert "GENJAX_CACHE" in text and str(tmp_path / "file") in text and "Not a directory" in text


def _load_with_little_room(pictures, queue):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # bytes a file: write() fails after it
    try:
        load(pictures)
    except BaseException as error:
        queue.put((type(error), str(error)))


def test_a_write_that_fails(pictures, own_cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_load_with_little_room, args=(pictures, queue))
    process.start()
    kind, text = queue.get(timeout=30)
    process.join()
    assert kind is UserError and "\n" not in text
    assert "File too large" in text and "make room" in text and str(own_cache) in text
    assert not list((own_cache / "arrays").iterdir())


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json", "rename"])
def test_a_full_disk_at_any_file(pictures, own_cache, monkeypatch, name):
    full = OSError(28, "No space left on device")

    def fail(*args, **kwargs):
        raise full

    targets = {
        "images.npy": (ds, "_write_header"),
        "labels.npy": (ds.np, "save"),
        "meta.json": (cache.json, "dump"),
        "rename": (cache.os, "rename"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[name], fail)
        with pytest.raises(UserError) as error:
            load(pictures)
    assert "No space left" in message_of(error) and "GENJAX_CACHE" in str(error.value)
    assert not list((own_cache / "arrays").iterdir())
    load(pictures)  # works again when there is room


def test_an_interruption_leaves_nothing(pictures, own_cache, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(ds, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(pictures)
    assert not list((own_cache / "arrays").iterdir())
