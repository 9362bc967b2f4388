"""All names of VGG's layers; files of other networks are refused."""

import hashlib
import pickle

import ml_dtypes
import numpy as np
import pytest

from genjax import download
from genjax.errors import UserError
from genjax.models.vgg import VARIANTS, path_to
from genjax.weights.vgg import PUBLISHED, load_decoder, load_vgg
from genjax.weights.write import write_safetensors
from tests import hdf5_files

RNG = np.random.default_rng(0)


def torch_layers(depth=19, variant="torchvision", until="relu3_1"):
    """{our name: (weight [out, in, kh, kw], bias)} of random weights."""
    channels, layers = 3, {}
    if VARIANTS[variant].conv0:
        layers["conv0"] = RNG.standard_normal((3, 3, 1, 1), np.float32), np.zeros(3, np.float32)
    for kind, name, block in path_to([until], depth):
        if kind == "conv":
            width = VARIANTS[variant].widths[block]
            weight = RNG.standard_normal((width, channels, 3, 3), np.float32)
            layers[name] = weight, RNG.standard_normal(width, np.float32)
            channels = width
    return layers


def check(loaded, layers, variant, depth=19):
    assert (loaded.variant, loaded.depth) == (variant, depth)
    assert set(loaded.params) == set(layers)
    for name, (weight, bias) in layers.items():
        kernel = loaded.params[name]["kernel"]
        np.testing.assert_array_equal(kernel[-1, 0, 1], weight[:, 1, -1, 0])
        assert kernel.shape == weight.transpose(2, 3, 1, 0).shape
        np.testing.assert_array_equal(loaded.params[name]["bias"], bias)


def written(tmp_path, arrays):
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, arrays)
    return path


# The positions that torchvision and pytorch-AdaIN print for their modules, counted by hand.
TORCHVISION_19 = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}
TORCHVISION_19 |= {"conv3_4": 16, "conv4_1": 19, "conv4_2": 21, "conv5_1": 28}
TORCHVISION_16 = {"conv3_1": 10, "conv3_3": 14, "conv4_1": 17, "conv4_3": 21, "conv5_1": 24}
ADAIN = {"conv0": 0, "conv1_1": 2, "conv1_2": 5, "conv2_1": 9, "conv2_2": 12, "conv3_1": 16}
ADAIN |= {"conv3_4": 25, "conv4_1": 29}


@pytest.mark.parametrize(
    "depth,variant,places,until",
    [
        (19, "torchvision", TORCHVISION_19, "relu3_4"),
        (16, "torchvision", TORCHVISION_16, "relu3_3"),
        (19, "normalised", ADAIN, "relu3_1"),
    ],
)
def test_places_in_a_sequential(tmp_path, depth, variant, places, until):
    from genjax.weights.vgg import _recognize

    layers = torch_layers(depth, variant, until)
    prefix = "features." if variant == "torchvision" else ""
    start, step = (0, 2) if variant == "torchvision" else (2, 3)
    arrays, place = {}, start
    if "conv0" in layers:
        arrays["0.weight"], arrays["0.bias"] = layers["conv0"]
    for kind, name, _ in path_to([until], depth):
        if kind == "pool":
            place += 1
            continue
        arrays[f"{prefix}{place}.weight"], arrays[f"{prefix}{place}.bias"] = layers[name]
        place += step
    marker = {"features.16.weight": 0} if depth == 19 else {}
    _, _, name_of = _recognize({**arrays, **(marker if prefix else {})}, depth)
    for ours, place in places.items():
        assert name_of(ours) == f"{prefix}{place}"
    loaded = load_vgg([until], written(tmp_path, arrays), depth=depth)
    check(loaded, layers, variant, depth)


@pytest.mark.parametrize("variant", ["normalised", "distilled"])
def test_npz(tmp_path, variant):
    layers = torch_layers(variant=variant)
    short = (lambda n: n.replace("_", "")) if variant == "distilled" else str
    arrays = {f"{short(n)}/{k}": a for n, layer in layers.items() for k, a in zip("wb", layer)}
    arrays = {n[:-1] + {"w": "weight", "b": "bias"}[n[-1]]: a for n, a in arrays.items()}
    if variant == "distilled":
        arrays["conv11_aux/weight"] = np.zeros((64, 16, 1, 1), np.float32)
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays)
    loaded = load_vgg(["relu2_1", "relu3_1"], path)
    check(loaded, layers, variant)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="end after conv3_1, but .* need conv4_2"):
        load_vgg(["relu4_2"], path)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_any_width_are_read(tmp_path, dtype):
    layers = {n: tuple(x.astype(dtype) for x in layer) for n, layer in torch_layers().items()}
    arrays = {"conv0.weight": np.zeros((3, 3, 1, 1), dtype), "conv0.bias": np.zeros(3, dtype)}
    for name, (weight, bias) in layers.items():
        arrays |= {f"{name}.weight": weight, f"{name}.bias": bias}
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, arrays)
    loaded = load_vgg(["relu1_2"], path)
    for name in ("conv1_1", "conv1_2"):
        kernel = loaded.params[name]["kernel"]
        assert kernel.dtype == np.float32
        wanted = layers[name][0].astype(np.float32).transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, wanted)


def test_keras_names(tmp_path, monkeypatch):
    import dataclasses

    narrow = dataclasses.replace(VARIANTS["keras"], widths=(2, 2, 2, 2, 2))
    monkeypatch.setitem(VARIANTS, "keras", narrow)
    for data, arrays in zip((hdf5_files.OLD, hdf5_files.NEW), hdf5_files.drawn()):
        path = tmp_path / "weights.h5"
        path.write_bytes(data)
        loaded = load_vgg(["block1_conv2"], path)
        assert loaded.variant == "keras"
        for layer in ("1_1", "1_2"):
            for kind in ("kernel", "bias"):
                want = arrays[f"block{layer[0]}_conv{layer[2]}", kind]
                np.testing.assert_array_equal(loaded.params[f"conv{layer}"][kind], want)


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch exploded",)


def bad_files(tmp_path):
    layers = torch_layers()
    good = {f"{n}.{k}": a for n, layer in layers.items() for k, a in zip(("weight", "bias"), layer)}
    good |= {"conv0.weight": np.zeros((3, 3, 1, 1), np.float32)}
    good |= {"conv0.bias": np.zeros(3, np.float32)}
    wide = {**good, "conv1_2.weight": np.zeros((64, 64, 5, 5), np.float32)}
    whole = {**good, "conv2_1.weight": good["conv2_1.weight"].astype(np.int64)}
    large = {**good, "conv2_1.weight": good["conv2_1.weight"].astype(np.float64) * 1e60}
    nan = {**good, "conv1_1.bias": np.full(64, np.nan, np.float32)}
    other = {"linear.weight": np.zeros((3, 3), np.float32)}
    nobias = {n: a for n, a in good.items() if n != "conv2_2.bias"}
    cases = {
        "another kernel": (wide, "conv1_2: its weight is .5, 5, 64, 64., not .3, 3, 64, 64."),
        "another type": (whole, "conv2_1: its weight is int64, not floats"),
        "too large": (large, "conv2_1: its weight is not finite"),
        "not finite": (nan, "conv1_1: its bias is not finite"),
        "another network": (other, "are not of VGG"),
        "no bias": (nobias, "conv2_2 has no bias"),
    }
    for name, (arrays, message) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        write_safetensors(path, arrays)
        yield path, message
    files = {
        "malicious.pth": (pickle.dumps(Bomb()), "not of PyTorch"),
        "text.h5": (b"hello", "not of PyTorch"),
        "empty.npz": (b"", "not of PyTorch"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        yield tmp_path / name, message
    yield tmp_path / "absent.h5", r"md5 253f8cb5.* is published at https://storage.googleapis"


def test_bad_files_are_one_line_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, message in bad_files(tmp_path):
        with pytest.raises(UserError, match=message) as info:
            load_vgg(["relu3_1"], path)
        assert "\n" not in str(info.value) and path.name in str(info.value)
    assert not (tmp_path / "exploded").exists()


def test_without_a_network_it_says_which_file_and_where_from(tmp_path, monkeypatch):
    def refuse(url, output):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("GENJAX_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "_download", refuse)
    for (variant, depth), published in PUBLISHED.items():
        with pytest.raises(UserError, match=published.file.digest) as info:
            load_vgg(["relu3_1"], None, variant, depth)
        assert published.file.url in str(info.value) and str(tmp_path) in str(info.value)
        assert len(published.file.sha256) == 64 or len(published.file.md5) == 32


def test_decoders(tmp_path):
    kernel = lambda o, i: RNG.standard_normal((o, i, 3, 3), np.float32)
    pair = lambda name, o, i: {f"{name}/weight": kernel(o, i), f"{name}/bias": np.ones(o, "f")}
    arrays = {**pair("conv11", 3, 4), **pair("conv12", 4, 4), **pair("conv21", 4, 6)}
    path = tmp_path / "decoder.npz"
    np.savez(path, **arrays)
    layers, _ = load_decoder(path)
    assert [name for name, _, _ in layers] == ["conv2_1", "conv1_2", "conv1_1"]
    assert layers[0][1].shape == (3, 3, 6, 4)
    np.testing.assert_array_equal(layers[0][1][0, 1, 2], arrays["conv21/weight"][:, 2, 0, 1])
    for wrong, message in (
        ({**arrays, **pair("conv12", 5, 4)}, "conv1_1 does not fit"),
        (pair("conv21", 4, 6), "end in 3 channels"),
        ({"fc/weight": kernel(2, 2)}, "is not a decoder"),
    ):
        np.savez(path, **wrong)
        with pytest.raises(UserError, match=message):
            load_decoder(path)
