"""The builders: correct pixels, labels and keys, no TensorFlow, and one line for every failure.

No test needs the network: files in the original formats are written here, with their checksums.
"""

import dataclasses
import gzip
import hashlib
import http.server
import io
import multiprocessing
import pathlib
import struct
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from genjax import download
from genjax.data import builders
from genjax.data.builders import digits
from genjax.errors import UserError
from genjax.files import cache_root

IDX_DATASETS = ["mnist", "fashion_mnist"]


def read(name, data_dir, split):
    """Reads examples as a user does: by name, from the folder."""
    return list(tfds.data_source(name, data_dir=data_dir, split=split))


def arrays(seed, count, shape):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    images[0] = 0
    return images, rng.integers(0, 10, count, dtype=np.uint8)


def described(file, data):
    return dataclasses.replace(file, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def idx_file(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def tar_file(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def idx_originals(tmp_path, monkeypatch):
    """A function that writes small original files of a dataset and returns their arrays."""

    def write(name):
        folder = tmp_path / "downloads" / name
        folder.mkdir(parents=True)
        builder = builders.BUILDERS[name]
        expected, files = {}, {}
        for seed, (split, pair) in enumerate(builder.FILES.items()):
            expected[split] = arrays(seed, 30 - 10 * seed, (28, 28))
            contents = [idx_file(array) for array in expected[split]]
            for file, data in zip(pair, contents, strict=True):
                (folder / file.name).write_bytes(data)
            files[split] = [described(f, data) for f, data in zip(pair, contents, strict=True)]
        monkeypatch.setattr(builder, "FILES", files)
        return expected

    return write


def cifar_members(expected):
    """Returns the members of CIFAR-10's archive for 50 training and 10 test examples."""
    members = {"cifar-10-batches-bin/batches.meta.txt": b"\n".join(b"c%d" % i for i in range(10))}
    members["cifar-10-batches-bin/batches.meta.txt"] += b"\n\n"
    for split, parts in (("train", 5), ("test", 1)):
        images, labels = expected[split]
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.concatenate([labels[:, None], planes], axis=1)
        for number, part in enumerate(np.split(records, parts), start=1):
            stem = f"data_batch_{number}" if split == "train" else "test_batch"
            members[f"cifar-10-batches-bin/{stem}.bin"] = part.tobytes()
    return members


def write_cifar(tmp_path, monkeypatch, members):
    builder = builders.BUILDERS["cifar10"]
    data = tar_file(members)
    folder = tmp_path / "downloads" / "cifar10"
    folder.mkdir(parents=True)
    (folder / builder.ARCHIVE.name).write_bytes(data)
    monkeypatch.setattr(builder, "ARCHIVE", described(builder.ARCHIVE, data))


# --- digits ---


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("digits")
    assert builders.prepare("digits", data_dir) == data_dir / "digits" / "1.0.0"
    return data_dir


def test_digits_are_those_of_sklearn(digits_dir):
    import sklearn.datasets

    source = sklearn.datasets.load_digits()
    images, labels = digits.load_digits()
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(images[..., 0] * (16 / 255)), source.images)

    train, test = (read("digits", digits_dir, split) for split in ("train", "test"))
    assert len(train) == 1415 and len(test) == 382
    np.testing.assert_array_equal(
        np.bincount([e["label"] for e in train]),
        [140, 143, 140, 144, 142, 143, 142, 141, 139, 141],
    )
    for examples, part in ((train, slice(0, 1415)), (test, slice(1415, None))):
        # TFDS stores examples in the order of their hashed keys, so compare as multisets.
        stored = sorted((e["image"].tobytes(), int(e["label"])) for e in examples)
        wanted = zip((i.tobytes() for i in images[part]), labels[part].tolist(), strict=True)
        assert stored == sorted(wanted)


def test_digits_info(digits_dir):
    info = tfds.builder_from_directory(digits_dir / "digits" / "1.0.0").info
    assert info.supervised_keys == ("image", "label")
    assert info.features["image"].shape == (8, 8, 1)
    assert info.features["label"].num_classes == 10
    assert "Optical Recognition" in info.citation


def test_digits_twice_gives_the_same_bytes(digits_dir, tmp_path):
    # Within one process; the next one's protobuf may order a record's fields differently.
    first, second = digits_dir / "digits" / "1.0.0", builders.prepare("digits", tmp_path)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_neither_tensorflow_nor_torch_and_quiet(tmp_path):
    program = f"""
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):  # TFDS and etils look for a spec, so neither may they find one
    @classmethod
    def find_spec(cls, name, *args):
        hidden = name.split(".")[0] in ("tensorflow", "torch")
        return None if hidden else PathFinder.find_spec(name, *args)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
import tensorflow_datasets as tfds
from genjax.data.builders import prepare
prepare("digits", {str(tmp_path)!r})
print(len(tfds.data_source("digits", data_dir={str(tmp_path)!r}, split="test")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "382"


def _prepare_digits(data_dir):
    builders.prepare("digits", data_dir)


def test_two_processes_at_once_and_a_stale_one(tmp_path):
    stale = tmp_path / "digits" / "incomplete.ABCDEF_1.0.0"  # what a killed process leaves
    stale.mkdir(parents=True)
    (stale / "digits-train.array_record-00000-of-00001").write_bytes(b"half")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_prepare_digits, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(read("digits", tmp_path, "train")) == 1415


def test_losing_the_race_is_no_error(tmp_path, monkeypatch):
    load = digits.load_digits

    def other_process_is_first():
        monkeypatch.setattr(digits, "load_digits", load)
        builders.prepare("digits", tmp_path)
        return load()

    monkeypatch.setattr(digits, "load_digits", other_process_is_first)
    builders.prepare("digits", tmp_path)
    assert digits.load_digits is load
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


# --- MNIST, Fashion-MNIST, CIFAR-10 ---


@pytest.mark.parametrize("name", IDX_DATASETS)
def test_idx_datasets(name, idx_originals, tmp_path):
    expected = idx_originals(name)
    path = builders.prepare(name, tmp_path)
    assert path == tmp_path / name / "3.0.1"
    for split, (images, labels) in expected.items():
        examples = read(name, tmp_path, split)
        assert all(set(example) == {"image", "label"} for example in examples)
        stored = sorted((e["image"].tobytes(), int(e["label"])) for e in examples)
        wanted = zip((i.tobytes() for i in images), labels.tolist(), strict=True)
        assert stored == sorted(wanted)


def test_urls_and_checksums_are_those_of_tfds():
    for name in (*IDX_DATASETS, "cifar10"):
        ours = builders.BUILDERS[name]
        files = [ours.ARCHIVE] if name == "cifar10" else [f for p in ours.FILES.values() for f in p]
        registered = tfds.builder_cls(name).url_infos
        assert {file.url for file in files} == set(registered)
        for file in files:
            assert (file.size, file.sha256) == (
                int(registered[file.url].size),
                registered[file.url].checksum,
            )


def test_metadata_is_that_of_tfds(idx_originals, tmp_path):
    idx_originals("fashion_mnist")
    ours = tfds.builder_from_directory(builders.prepare("fashion_mnist", tmp_path)).info
    theirs = tfds.builder("fashion_mnist", data_dir=tmp_path / "other").info
    for field in ("name", "version", "description", "citation", "homepage", "module_name"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.supervised_keys == theirs.supervised_keys
    assert ours.features.to_json() == theirs.features.to_json()
    assert ours.features["label"].names == theirs.features["label"].names
    assert ours.features["label"].names[9] == "Ankle boot"


def test_cifar10(tmp_path, monkeypatch):
    expected = {"train": arrays(0, 50, (32, 32, 3)), "test": arrays(1, 10, (32, 32, 3))}
    write_cifar(tmp_path, monkeypatch, cifar_members(expected))
    path = builders.prepare("cifar10", tmp_path)
    assert path == tmp_path / "cifar10" / "3.0.2"
    for split, (images, labels) in expected.items():
        examples = read("cifar10", tmp_path, split)
        assert len(examples) == len(images)
        order = [int(example["id"].decode().removeprefix(f"{split}_")) for example in examples]
        np.testing.assert_array_equal(np.stack([e["image"] for e in examples]), images[order])
        np.testing.assert_array_equal([e["label"] for e in examples], labels[order])
    info = tfds.builder_from_directory(path).info
    assert info.features["label"].names == [f"c{i}" for i in range(10)]


def test_order_on_disk_is_that_of_tfds(tmp_path, monkeypatch):
    expected = {"train": arrays(0, 50, (32, 32, 3)), "test": arrays(1, 10, (32, 32, 3))}
    write_cifar(tmp_path, monkeypatch, cifar_members(expected))
    builders.prepare("cifar10", tmp_path)
    ids = [example["id"].decode() for example in read("cifar10", tmp_path, "test")]
    # TFDS sorts by md5(split name + key), its key being the index; see tfds.core.hashing.
    keys = sorted(range(10), key=lambda i: hashlib.md5(f"test{i}".encode()).hexdigest())
    assert ids == [f"test_{key:05d}" for key in keys]


def test_hostile_archive_is_harmless(tmp_path, monkeypatch):
    expected = {"train": arrays(0, 50, (32, 32, 3)), "test": arrays(1, 10, (32, 32, 3))}
    hostile = {"../escaped": b"x", "/tmp/genjax_escaped": b"x", "cifar-10-batches-bin/../e": b"x"}
    write_cifar(tmp_path / "deep", monkeypatch, hostile | cifar_members(expected))
    builders.prepare("cifar10", tmp_path / "deep")
    assert not list(tmp_path.rglob("e*scaped")) and not list(tmp_path.rglob("e"))
    assert not pathlib.Path("/tmp/genjax_escaped").exists()
    assert len(read("cifar10", tmp_path / "deep", "test")) == 10


# --- what can go wrong ---


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_half_a_file(idx_originals, tmp_path):
    idx_originals("mnist")
    path = tmp_path / "downloads" / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as error:
        builders.prepare("mnist", tmp_path)
    assert str(path) in message_of(error) and "100 bytes" in message_of(error)
    assert not list((tmp_path / "mnist").iterdir())


def test_wrong_checksum_of_a_whole_file(idx_originals, tmp_path):
    idx_originals("mnist")
    path = tmp_path / "downloads" / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="instead of .* sha256"):
        builders.prepare("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_network(name, tmp_path, monkeypatch):
    def refuse(url, timeout):
        raise OSError("Network is\nunreachable")

    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)
    with pytest.raises(UserError) as error:
        builders.prepare(name, tmp_path)
    folder, text = tmp_path / "downloads" / name, message_of(error)
    file = "cifar-10-binary.tar.gz" if name == "cifar10" else "train-images-idx3-ubyte.gz"
    assert f"/{file} " in text and f"the file {file}" in text and str(folder) in text
    assert "unreachable" in text
    assert not list(folder.iterdir())


@pytest.fixture
def server(tmp_path):
    """A local web server: (folder that it serves, its URL)."""
    root = tmp_path / "server"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=root)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_download(server, tmp_path):
    root, url = server
    (root / "a.gz").write_bytes(b"contents")
    file = described(download.RemoteFile(f"{url}/a.gz", 0, ""), b"contents")
    folder = tmp_path / "folder"
    assert download.fetch(file, folder).read_bytes() == b"contents"
    (root / "a.gz").unlink()
    assert download.fetch(file, folder) == folder / "a.gz"  # from there, not from the network


@pytest.mark.parametrize("served", [b"cont", b"Contents", None])  # cut off, changed, 404
def test_bad_download_leaves_nothing(served, server, tmp_path):
    root, url = server
    if served is not None:
        (root / "a.gz").write_bytes(served)
    file = described(download.RemoteFile(f"{url}/a.gz", 0, ""), b"contents")
    with pytest.raises(UserError) as error:
        download.fetch(file, tmp_path / "folder")
    assert url in message_of(error) and str(tmp_path / "folder") in message_of(error)
    assert not list((tmp_path / "folder").iterdir())


def test_a_connection_cut_in_the_middle(tmp_path):
    """The server promises 1,000,000 bytes and hangs up after a few."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"cont")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_port}"
        with pytest.raises(UserError) as error:
            download.fetch(described(download.RemoteFile(f"{url}/a.gz", 0, ""), b"whole"), tmp_path)
        httpd.shutdown()
    assert f"{url}/a.gz" in message_of(error) and str(tmp_path) in message_of(error)
    assert not list(tmp_path.iterdir())
    # And now nothing listens on that port.
    with pytest.raises(UserError, match="refused"):
        download.fetch(download.RemoteFile(f"{url}/a.gz", 0, ""), tmp_path)
    assert not list(tmp_path.iterdir())


def test_nobody_sees_half_a_file(tmp_path, monkeypatch):
    file = described(download.RemoteFile("http://nowhere/a.gz", 0, ""), b"contents")

    def write(url, output):
        output.write(b"cont")
        output.flush()
        assert not (tmp_path / "a.gz").exists()
        output.write(b"ents")

    monkeypatch.setattr(download, "_download", write)
    assert download.fetch(file, tmp_path).read_bytes() == b"contents"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gz"]


def test_a_full_disk_while_downloading(tmp_path, monkeypatch):
    def fail(url, output):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_download", fail)
    with pytest.raises(UserError, match="No space left"):
        download.fetch(download.RemoteFile("http://nowhere/a.gz", 0, ""), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_preparing(tmp_path, monkeypatch):
    """ArrayRecord raises a RuntimeError of its own kind."""

    def fail(self):
        raise RuntimeError("Failed to finalize: write() failed: No space left on device; ...")

    monkeypatch.setattr(builders.Digits, "download_and_prepare", fail)
    for root, option in ((tmp_path, "config.data.data_dir"), (cache_root() / "x", "GENJAX_CACHE")):
        with pytest.raises(UserError, match=f"No space left .* set {option} to") as error:
            builders.prepare("digits", root)
        assert "\n" not in str(error.value)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="fashion_mnist"):
        builders.prepare("fashion_mnst", tmp_path)
    with pytest.raises(UserError, match="digits"):
        builders.prepare("digist", tmp_path)


def test_other_dataset_without_tensorflow(tmp_path, monkeypatch):
    def needs_tensorflow(self, **kwargs):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", needs_tensorflow)
    with pytest.raises(UserError) as error:
        builders.prepare("kmnist", tmp_path)
    assert "pip install -e .[prepare]" in message_of(error)
    assert "python launch.py --mode=prepare --config.data.name=kmnist" in message_of(error)


def test_folder_that_is_no_dataset(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match="delete that folder"):
        builders.prepare("digits", tmp_path)


def test_prepared_in_another_format(tmp_path):
    folder = builders.prepare("digits", tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="another data_dir"):
        builders.prepare("digits", tmp_path)
