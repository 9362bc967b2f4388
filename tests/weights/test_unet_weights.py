"""U-Nets with diffusers' names, and files of safetensors written here."""

import jax
import numpy as np
import pytest

from genjax.errors import UserError
from genjax.models.unet import UNet
from genjax.weights.networks import load_network, save_network
from genjax.weights.read import read_arrays
from genjax.weights.unet import from_diffusers, to_diffusers
from genjax.weights.write import write_safetensors

NETWORK = UNet(8, (1, 2, 2), 2, (8,), "ddpm")


@pytest.fixture(scope="module")
def arrays():
    x = np.zeros((1, 16, 16, 3), np.float32)
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), x, x[:, 0, 0, 0])["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    return params, to_diffusers(NETWORK, params)


def test_a_file_gives_the_network_back(arrays, tmp_path):
    params, named = arrays
    path = tmp_path / "unet.safetensors"
    assert save_network(path, NETWORK, params, {"made": "by a test"}) == "diffusers'"
    assert set(read_arrays(path)[0]) == set(named)
    found, _ = load_network(path, NETWORK, params, (16, 16, 3))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert from_diffusers(named, 16)[0] == NETWORK
    other = UNet(8, (1, 2, 2), 1, (), "ddpm", num_classes=3)
    with pytest.raises(UserError, match=r"num_blocks='2' .*attention='\(8,\)' .*conditional='Fal"):
        load_network(path, other, params, (16, 16, 3))


def test_weights_that_are_not_finite_are_refused(arrays, tmp_path):
    params, path = arrays[0], tmp_path / "unet.safetensors"
    broken = {**params, "conv_in": {**params["conv_in"], "bias": np.full(8, np.nan, np.float32)}}
    save_network(path, NETWORK, broken, {})
    with pytest.raises(UserError, match="conv_in.bias is not finite"):
        load_network(path, NETWORK, params, (16, 16, 3))


def test_networks_that_others_have_no_names_for_keep_ours(arrays, tmp_path):
    params, path = arrays[0], tmp_path / "unet.safetensors"
    plus = UNet(8, (1, 2, 2), 2, (8,), "ddpmpp")  # of other parameters, which do not matter here
    assert save_network(path, plus, params, {}) == "our"
    found, _ = load_network(path, plus, params, (16, 16, 3))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    fewer = {k: v for k, v in params.items() if k != "conv_out"}
    with pytest.raises(UserError, match="another network: it has 'conv_out.bias'"):
        load_network(path, plus, fewer, (16, 16, 3))
    with pytest.raises(UserError, match="another network: it has no 'more'"):
        load_network(path, plus, {**params, "more": np.zeros(1)}, (16, 16, 3))
    wider = {**params, "conv_out": {"kernel": np.zeros((3, 3, 8, 4)), "bias": np.zeros(3)}}
    with pytest.raises(UserError, match=r"conv_out.kernel is \[3, 3, 8, 3\] there, \[3, 3, 8, 4\]"):
        load_network(path, plus, wider, (16, 16, 3))


def test_names_and_layouts_are_diffusers(arrays):
    params, named = arrays
    kernel = params["down1_0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        named["down_blocks.1.resnets.0.conv1.weight"], kernel.transpose(3, 2, 0, 1)
    )
    skip = named["up_blocks.0.resnets.1.conv_shortcut.weight"]
    np.testing.assert_array_equal(skip[:, :, 0, 0].T, params["up2_1"]["skip"]["kernel"])
    key = named["up_blocks.1.attentions.2.to_k.weight"]
    qkv = params["up1_2_attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(key.T, qkv[:, 16:32])
    assert "mid_block.attentions.0.to_out.0.bias" in named
    assert "down_blocks.0.downsamplers.0.conv.weight" in named


def test_files_of_older_versions_are_read(arrays):
    params, named = arrays
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(name):
        for new, older in old.items():
            name = name.replace(new, older)
        return name

    _, found = from_diffusers({rename(k): v for k, v in named.items()}, 16)
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda a: a.pop("conv_out.bias"), "conv_out.bias is missing"),
        (lambda a: a.pop("conv_in.weight"), "conv_in.weight.* is missing"),
        (lambda a: a.update(more=np.zeros(1)), "'more' too"),
        (lambda a: a.update({"conv_out.bias": np.zeros(4)}), "conv_out.bias has the shape"),
    ],
)
def test_other_files_are_refused(arrays, change, message):
    named = dict(arrays[1])
    change(named)
    with pytest.raises(UserError, match=message):
        from_diffusers(named, 16)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    tree = {"a": {"b": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}, "c": np.int32([[7]])}
    write_safetensors(path, tree)
    found, _ = read_arrays(path)
    np.testing.assert_array_equal(found["a.b"], tree["a"]["b"])
    np.testing.assert_array_equal(found["c"], tree["c"])
    with pytest.raises(ValueError, match="complex64"):
        write_safetensors(path, {"z": np.complex64([1j])})
