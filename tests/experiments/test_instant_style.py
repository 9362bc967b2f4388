"""AdaIN, WCT and the network of one style, end to end and small."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import style_adain, style_feedforward, style_wct
from experiments import evaluation, training
from experiments.run import Run
from genjax.errors import UserError
from genjax.models.stylizers import Decoder
from genjax.models.vgg import VARIANTS, VGG
from genjax.train.checkpoint import Checkpoints
from genjax.weights.vgg import load_decoder

SOURCE = {"config_file": "a test", "arguments": ""}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    for name in ("keras", "normalised"):
        slim = dataclasses.replace(VARIANTS[name], widths=(4, 6, 8, 8, 8))
        monkeypatch.setitem(VARIANTS, name, slim)


def weights_files(folder, level):
    """An encoder of `normalised` and its decoder, random, as npz files."""
    layer = f"relu{level}_1"
    pairs = {}
    images = np.zeros((1, 16, 16, 3), np.float32)
    found, variables = jax.jit(VGG((layer,), variant="normalised").init_with_output)(
        jax.random.key(0), images
    )
    pairs[f"encoder{level}"] = variables["params"]
    decoder = Decoder(layer, VARIANTS["normalised"].widths)
    pairs[f"decoder{level}"] = jax.jit(decoder.init)(jax.random.key(1), found[layer])["params"]
    for name, params in pairs.items():
        arrays = {}
        for conv, p in params.items():
            arrays[f"{conv}/weight"] = np.asarray(p["kernel"]).transpose(3, 2, 0, 1)
            arrays[f"{conv}/bias"] = np.asarray(p["bias"])
        np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"encoder{level}.npz", folder / f"decoder{level}.npz"


def picture(workdir):
    with Image.open(workdir / "samples" / "china_flower.png") as found:
        return np.asarray(found)


def test_wct_from_files(tmp_path):
    for level in (1, 2):
        weights_files(tmp_path, level)
    config = style_wct.get_config("smoke")
    config.weights = str(tmp_path / "encoder{}.npz")
    config.decoder = str(tmp_path / "decoder{}.npz")
    config.size, config.color = 33, "luminance"  # no multiple of the stride
    report = training.train(config, tmp_path / "run", SOURCE)
    assert picture(tmp_path / "run").shape == (22, 33, 3)
    assert "normalised" not in report and len(report["relu2_1"].split()[-1]) == 64
    assert json.loads((tmp_path / "run/report.json").read_text())["seconds"] > 0

    config.decoder = str(tmp_path / "decoder1.npz")
    with pytest.raises(UserError, match="begins with conv1_1 of 4 channels, not with conv2_1 of 6"):
        training.train(config, tmp_path / "other", SOURCE)
    config.levels = (6,)
    with pytest.raises(UserError, match="config.levels="):
        training.train(config, tmp_path / "other", SOURCE)


def test_adain_is_trained_used_and_used_again(tmp_path):
    config = style_adain.get_config("smoke")
    encoder, _ = weights_files(tmp_path, 2)
    config.weights = str(encoder)
    rng = np.random.default_rng(0)
    (tmp_path / "paintings").mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "paintings" / f"{i}.png")
    config.style_data = f"folder:{tmp_path}/paintings"
    workdir = tmp_path / "run"
    report = training.train(config, workdir, SOURCE)
    losses = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train/loss"] for x in losses if "train/loss" in x]
    assert losses[-1] < losses[0] and report["eval/style"] > 0
    assert (workdir / "figures" / "stylized.png").exists()
    first = picture(workdir)
    assert report["protocol"]["frozen"].keys() == {"vgg", "styles"}
    saved = Checkpoints(workdir / "checkpoints").restore(Run.build(config).template())[0]
    assert not saved.model_state and saved.params

    again = config.copy_and_resolve_references()
    again.strength = 0.25
    evaluation.sample(again, workdir, SOURCE)
    assert (picture(workdir) != first).any()

    mine = encoder.read_bytes()
    with np.load(encoder, allow_pickle=False) as arrays:
        np.savez(encoder, **{**arrays, "conv0/bias": np.ones(3, np.float32)})
    with pytest.raises(UserError, match="was made with another 'vgg': encoder2.npz"):
        evaluation.sample(again, workdir, SOURCE)
    encoder.write_bytes(mine)

    # The decoder that was written draws the same picture without the checkpoint.
    config.decoder = str(workdir / "decoder.safetensors")
    assert [n for n, _, _ in load_decoder(config.decoder)[0]][0] == "conv2_1"
    training.train(config, tmp_path / "instant", SOURCE)
    np.testing.assert_array_equal(picture(tmp_path / "instant"), first)
    config.strength, config.style = 0.0, "china"
    config.weights = "random"
    with pytest.raises(UserError, match="config.weights='random' must be those"):
        training.train(config, tmp_path / "instant", SOURCE)


def test_a_network_of_one_style(tmp_path):
    config = style_feedforward.get_config("smoke")
    config.optim.lr, config.num_train_steps, config.log_every_steps = 5e-3, 40, 1
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 0
    training.train(config, tmp_path, SOURCE)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train/loss"] for x in lines if "train/loss" in x]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    first = picture(tmp_path)
    assert first.shape == (16, 24, 3)
    other = config.copy_and_resolve_references()
    other.style = "china"
    with pytest.raises(UserError, match="config.style: 'flower' there, 'china' now"):
        evaluation.sample(other, tmp_path, SOURCE)


@pytest.mark.parametrize(
    "module,overrides,message",
    [
        (style_adain, {"model.layer": "relu4_2"}, "config.model.layer='relu4_2'"),
        (style_adain, {"strength": 1.5}, "config.strength=1.5 must be in"),
        (style_adain, {"data.image_shape": (15, 16, 3)}, "multiples of 2"),
        (style_adain, {"batch_size": 1}, "config.batch_size=1 must be at least 2"),
        (style_feedforward, {"strength": 0.5}, "config.strength=0.5 must be 1"),
        (style_feedforward, {"data.image_shape": (10, 12, 3)}, "multiples of 4"),
        (style_feedforward, {"objective.style": "relaxed_emd"}, "a loss of moments"),
    ],
)
def test_mistakes_are_one_line(tmp_path, module, overrides, message):
    config = module.get_config("smoke")
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message) as info:
        training.train(config, tmp_path, SOURCE)
    assert "\n" not in str(info.value)
