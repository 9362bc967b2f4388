"""Networks of EDM's authors: pickles of modules with code, read without running it."""

import os
import sys

import jax
import numpy as np
import pytest

from genjax.errors import UserError
from genjax.models.unet import UNet
from genjax.weights import module_pickle
from genjax.weights.edm import from_edm
from genjax.weights.networks import load_network
from genjax.weights.read import read_arrays
from tests import edm_files as ef

# A network for 16x16 images with attention at 8x8, and 3 classes.
NETWORK = UNet(8, (1, 2), 2, (8,), "ddpmpp", num_classes=3, classes_first=True)
WIDTH = 4 * 8


def block(name, inputs, outputs, resample=False, attention=False):
    shapes = {
        "norm0.weight": (inputs,),
        "norm0.bias": (inputs,),
        "conv0.weight": (outputs, inputs, 3, 3),
        "conv0.bias": (outputs,),
        "affine.weight": (outputs, WIDTH),
        "affine.bias": (outputs,),
        "norm1.weight": (outputs,),
        "norm1.bias": (outputs,),
        "conv1.weight": (outputs, outputs, 3, 3),
        "conv1.bias": (outputs,),
    }
    if resample:
        shapes |= {"conv0.resample_filter": (1, 1, 2, 2), "skip.resample_filter": (1, 1, 2, 2)}
    if resample or inputs != outputs:
        shapes |= {"skip.weight": (outputs, inputs, 1, 1), "skip.bias": (outputs,)}
    if attention:
        shapes |= {"norm2.weight": (outputs,), "norm2.bias": (outputs,)}
        shapes |= {"qkv.weight": (3 * outputs, outputs, 1, 1), "qkv.bias": (3 * outputs,)}
        shapes |= {"proj.weight": (outputs, outputs, 1, 1), "proj.bias": (outputs,)}
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


SHAPES = {
    "map_label.weight": (8, 3),
    "map_label.bias": (8,),
    "map_augment.weight": (8, 9),
    "map_layer0.weight": (WIDTH, 8),
    "map_layer0.bias": (WIDTH,),
    "map_layer1.weight": (WIDTH, WIDTH),
    "map_layer1.bias": (WIDTH,),
    "enc.16x16_conv.weight": (8, 3, 3, 3),
    "enc.16x16_conv.bias": (8,),
    **block("enc.16x16_block0", 8, 8),
    **block("enc.16x16_block1", 8, 8),
    **block("enc.8x8_down", 8, 8, resample=True),
    **block("enc.8x8_block0", 8, 16, attention=True),
    **block("enc.8x8_block1", 16, 16, attention=True),
    **block("dec.8x8_in0", 16, 16, attention=True),
    **block("dec.8x8_in1", 16, 16),
    **block("dec.8x8_block0", 32, 16),
    **block("dec.8x8_block1", 32, 16),
    **block("dec.8x8_block2", 24, 16, attention=True),
    **block("dec.16x16_up", 16, 16, resample=True),
    **block("dec.16x16_block0", 24, 8),
    **block("dec.16x16_block1", 16, 8),
    **block("dec.16x16_block2", 16, 8),
    "dec.16x16_aux_norm.weight": (8,),
    "dec.16x16_aux_norm.bias": (8,),
    "dec.16x16_aux_conv.weight": (3, 8, 3, 3),
    "dec.16x16_aux_conv.bias": (3,),
}


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    made = {k: rng.normal(size=shape).astype(np.float32) for k, shape in SHAPES.items()}
    for name in made:
        if name.endswith("resample_filter"):
            made[name] = np.full((1, 1, 2, 2), 0.25, np.float32)
    return made


@pytest.fixture(scope="module")
def wanted():
    x = np.zeros((1, 16, 16, 3), np.float32)
    label = np.zeros(1, np.int32)
    return jax.eval_shape(NETWORK.init, jax.random.key(0), x, x[:, 0, 0, 0], label)["params"]


def pickled(arrays, protocol=4):
    """A file as EDM's training writes it."""
    network = ef.persistent("EDMPrecond", modules={"model": ef.tree(arrays)}, sigma_data=0.5)
    data = {"ema": network, "loss_fn": ef.persistent("EDMLoss"), "augment_pipe": None}
    return ef.dumped({**data, "dataset_kwargs": {"path": "x.zip", "max_size": 50_000}}, protocol)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_pickle_is_read_and_nothing_of_it_is_run(arrays, tmp_path, protocol):
    path = tmp_path / "edm.pkl"
    path.write_bytes(pickled(arrays, protocol))
    found, _ = read_arrays(path)
    assert {name.removeprefix("ema.model.") for name in found} == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[f"ema.model.{name}"], array)
    assert not {"torch", "torch_utils", "torch.storage", "dnnlib"} & set(sys.modules)


def test_its_network_is_ours(arrays, wanted, tmp_path):
    path = tmp_path / "edm.pkl"
    path.write_bytes(pickled(arrays))
    params, _ = load_network(path, NETWORK, wanted, (16, 16, 3))
    first = params["down1_0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        first, arrays["enc.8x8_block0.conv0.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(
        params["up0_double"]["skip"]["kernel"], arrays["dec.16x16_up.skip.weight"][:, :, 0, 0].T
    )
    np.testing.assert_array_equal(
        params["up1_2_attention"]["norm"]["scale"], arrays["dec.8x8_block2.norm2.weight"]
    )
    # Of channel c they have q, k, v next to each other; we have all of q first.
    qkv = arrays["dec.8x8_in0.qkv.weight"][:, :, 0, 0]
    ours = params["middle_attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(ours[:, :16].T, qkv[0::3])
    np.testing.assert_array_equal(ours[:, 32:].T, qkv[2::3])
    # sqrt(3) times one class, by a layer; no class is zeros.
    weight, bias = arrays["map_label.weight"], arrays["map_label.bias"]
    table = params["classes"]["embedding"]
    np.testing.assert_allclose(table[1], weight @ (np.sqrt(3) * np.eye(3)[1]) + bias, rtol=1e-5)
    np.testing.assert_array_equal(table[3], bias)
    other = UNet(8, (1, 2), 3, (8,), "ddpm")
    wrong = "take --config.model.num_blocks='2' --config.model.variant='ddpmpp'"
    with pytest.raises(UserError, match=wrong):
        load_network(path, other, wanted, (16, 16, 3))


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda a: a.update({"map_noise.freqs": np.zeros(4)}), "it has 'map_noise.freqs'"),
        (lambda a: a.update({"out_norm.weight": np.zeros(4)}), "it has 'out_norm.weight'"),
        (lambda a: a.update({"enc.8x8_aux_residual.weight": np.zeros(4)}), "aux_residual"),
        (lambda a: a.update({"enc.7x7_block0.conv0.bias": np.zeros(4)}), "7x7_block0"),
        (
            lambda a: a.update({"enc.8x8_down.skip.resample_filter": np.ones((1, 1, 4, 4))}),
            "filter",
        ),
        (lambda a: a.pop("enc.16x16_conv.weight"), "it has no .*conv_in"),
    ],
)
def test_other_networks_are_refused(arrays, change, message):
    changed = dict(arrays)
    change(changed)
    with pytest.raises(UserError, match=message):
        from_edm({f"ema.model.{name}": array for name, array in changed.items()}, 16)


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_commands_beside_a_network_are_not_run(arrays, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "edm.pkl"
    hostile = Command(f"touch {marker}")
    few = {"map_layer0.weight": arrays["map_layer0.weight"]}
    network = ef.persistent("EDMPrecond", modules={"model": ef.tree(few), "b": hostile}, c=hostile)
    path.write_bytes(ef.dumped({"ema": network, "also": [hostile, {"in": hostile}]}))
    found, _ = read_arrays(path)
    assert set(found) == {"ema.model.map_layer0.weight"} and not marker.exists()
    path.write_bytes(ef.dumped({"ema": hostile}))
    with pytest.raises(UserError, match="not of PyTorch modules"):
        read_arrays(path)
    assert not marker.exists()


def test_modules_in_themselves_come_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module_pickle, "MAX_MODULES", 2**10)  # seconds less of type checks
    monkeypatch.setattr(module_pickle, "MAX_INSTRUCTIONS", 2**14)
    path = tmp_path / "edm.pkl"
    # m = {"_modules": {"a": m, "b": m}}, built after it was memoized.
    program = b"\x80\x04\x8c\x01x\x8c\x01y\x93)\x81q\x00}(\x8c\x08_modules}(\x8c\x01ah\x00"
    path.write_bytes(program + b"\x8c\x01bh\x00uub.")
    with pytest.raises(UserError, match="too many"):
        read_arrays(path)
    path.write_bytes(b"\x80\x04" + b"}" * 2**15 + b".")
    with pytest.raises(UserError, match="too long"):
        read_arrays(path)


def test_every_truncation_is_refused(arrays, tmp_path):
    few = {"map_layer0.weight": arrays["map_layer0.weight"][:1, :2].copy()}
    data, path = pickled(few), tmp_path / "edm.pkl"
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(UserError) as error:
            read_arrays(path)
        assert "\n" not in str(error.value)
