"""Finding Inception's weights, and their strict mapping to our names."""

import dataclasses
import hashlib

import numpy as np
import pytest

from genjax import download
from genjax.errors import UserError
from genjax.weights import inception, published
from genjax.weights.inception import from_torch, load_inception, torch_layout
from tests import torch_files as tf

ORIGINAL = published.INCEPTION


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape, np.float32) for name, (_, shape) in torch_layout().items()
    }


@pytest.fixture(scope="module")
def zipped(arrays):
    """A file of the full network, 95 MB."""
    return tf.torch_zip(arrays)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of downloads, empty; there is no network."""

    def refuse(url, output):
        raise OSError("Network is\nunreachable")

    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_download", refuse)
    return tmp_path / "cache" / "weights"


def publish(monkeypatch, data):
    """Makes `data` the published file."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = dataclasses.replace(ORIGINAL.file, size=len(data), sha256=sha256)
    monkeypatch.setattr(inception, "INCEPTION", dataclasses.replace(ORIGINAL, file=file))


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_the_published_file():
    file = ORIGINAL.file
    # torch.hub checks the digits in the name against the beginning of the checksum.
    assert file.name == "pt_inception-2015-12-05-6726825d.pth"
    assert file.sha256.startswith("6726825d") and len(file.sha256) == 64
    assert file.url.startswith("https://github.com/mseitzer/pytorch-fid/")
    numbers = sum(int(np.prod(shape)) for _, shape in torch_layout().values())
    assert 0 < file.size - 4 * numbers < 100_000  # all of the network, in float32, and no more


# --- mapping ---


def test_every_array_goes_to_its_place(arrays):
    variables = from_torch(arrays, "here")
    assert set(variables) == {"params", "batch_stats"}
    conv = variables["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    torch = arrays["Mixed_6b.branch7x7_2.conv.weight"]  # [out, in, 1, 7]
    assert conv.shape == (1, 7, 128, 128) and conv.flags.c_contiguous
    assert conv[0, 3, 5, 7] == torch[7, 5, 0, 3]
    assert variables["params"]["fc"]["kernel"][5, 7] == arrays["fc.weight"][7, 5]
    for ours, theirs in (("scale", "weight"), ("bias", "bias")):
        found = variables["params"]["Mixed_7c"]["branch_pool"]["bn"][ours]
        np.testing.assert_array_equal(found, arrays[f"Mixed_7c.branch_pool.bn.{theirs}"])
    for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
        found = variables["batch_stats"]["Conv2d_1a_3x3"]["bn"][ours]
        np.testing.assert_array_equal(found, arrays[f"Conv2d_1a_3x3.bn.{theirs}"])


def test_counts_of_training_steps_are_left_out(arrays):
    counts = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(0)}
    from_torch(arrays | counts, "here")


NAME = "Mixed_5b.branch1x1.conv.weight"  # [64, 192, 1, 1]


@pytest.mark.parametrize(
    "change,message",
    [
        ({NAME: None}, f"{NAME} is missing"),
        ({"AuxLogits.fc.weight": np.zeros(3, np.float32)}, "they have 'AuxLogits.fc.weight' too"),
        ({NAME: np.zeros((1, 1, 192, 64), np.float32)}, "(1, 1, 192, 64) instead of float32 (64,"),
        ({NAME: np.zeros((64, 192, 1, 1), np.float16)}, "is float16 (64, 192, 1, 1) instead of"),
        ({NAME: np.full((64, 192, 1, 1), np.nan, np.float32)}, f"{NAME} is not finite"),
        ({"fc.weight": np.zeros((1000, 2048), np.float32)}, "fc.weight is float32 (1000, 2048)"),
    ],
)
def test_other_networks_are_refused_by_name(arrays, change, message):
    changed = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(UserError) as error:
        from_torch(changed, "/some/where.pth")
    assert message in message_of(error) and "/some/where.pth" in message_of(error)


# --- finding ---


def test_a_given_file_says_which_it_is(arrays, zipped, tmp_path, cache):
    path = tmp_path / "mine.pth"
    path.write_bytes(zipped)
    variables, provenance = load_inception(path)
    bias = arrays["fc.bias"]
    np.testing.assert_array_equal(variables["params"]["fc"]["bias"], bias)
    assert provenance == inception.Provenance(
        str(path), hashlib.sha256(zipped).hexdigest(), published=False
    )
    assert not cache.exists()


def test_downloaded_once_and_verified(zipped, cache, monkeypatch):
    publish(monkeypatch, zipped)
    monkeypatch.setattr(download, "_download", lambda url, output: output.write(zipped))
    _, provenance = load_inception()
    assert provenance.published and provenance.path == str(cache / ORIGINAL.file.name)
    monkeypatch.setattr(download, "_download", None)
    (cache / ORIGINAL.file.name).write_bytes(zipped[:-1])
    with pytest.raises(UserError, match="is not the file published"):
        load_inception()


def test_without_network_it_says_which_file_goes_where(cache):
    with pytest.raises(UserError) as error:
        load_inception()
    for part in (ORIGINAL.file.name, ORIGINAL.file.url, ORIGINAL.file.sha256, str(cache)):
        assert part in message_of(error)
    assert not list(cache.iterdir())


def test_a_given_file_that_is_not_there(tmp_path, cache):
    with pytest.raises(UserError) as error:
        load_inception(tmp_path / "nothing.pth")
    for part in (str(tmp_path / "nothing.pth"), ORIGINAL.file.url, ORIGINAL.file.sha256):
        assert part in message_of(error)


def test_a_given_file_of_something_else(tmp_path, cache):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(UserError, match="Conv2d_1a_3x3.* is missing"):
        load_inception(path)
