"""AdaIN, WCT and the network of one style, end to end and small."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import style_adain, style_feedforward, style_wct
from experiments.style import wct
from experiments.style.adain import Adain
from experiments.style.feedforward import FeedforwardStyle
from experiments.style.frozen_vgg import FrozenVgg
from genjax.errors import UserError
from genjax.models.stylizers import Decoder, TransformNet
from genjax.models.vgg import VARIANTS, VGG
from genjax.rng import Rngs
from genjax.runner import modes
from genjax.runner.run import Run
from genjax.runner.train import train
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
    report = train(config, tmp_path / "run", SOURCE)
    assert picture(tmp_path / "run").shape == (22, 33, 3)
    assert "normalised" not in report and len(report["relu2_1"].split()[-1]) == 64
    assert json.loads((tmp_path / "run/report.json").read_text())["seconds"] > 0

    config.decoder = str(tmp_path / "decoder1.npz")
    with pytest.raises(UserError, match="starts with conv1_1 of 4 channels, not with conv2_1 of 6"):
        train(config, tmp_path / "other", SOURCE)
    config.levels = (6,)
    with pytest.raises(UserError, match="config.levels="):
        train(config, tmp_path / "other", SOURCE)


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
    report = train(config, workdir, SOURCE)
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
    modes.sample(again, workdir, SOURCE)
    assert (picture(workdir) != first).any()

    mine = encoder.read_bytes()
    with np.load(encoder, allow_pickle=False) as arrays:
        np.savez(encoder, **{**arrays, "conv0/bias": np.ones(3, np.float32)})
    with pytest.raises(UserError, match="with another 'vgg': encoder2.npz"):
        modes.sample(again, workdir, SOURCE)
    encoder.write_bytes(mine)

    # The decoder that was written draws the same picture without the checkpoint.
    config.decoder = str(workdir / "decoder.safetensors")
    assert [n for n, _, _ in load_decoder(config.decoder)[0]][0] == "conv2_1"
    train(config, tmp_path / "instant", SOURCE)
    np.testing.assert_array_equal(picture(tmp_path / "instant"), first)
    config.strength, config.style = 0.0, "china"
    config.weights = "random"
    with pytest.raises(UserError, match="config.weights='random' must be those"):
        train(config, tmp_path / "instant", SOURCE)


def test_a_network_of_one_style(tmp_path):
    config = style_feedforward.get_config("smoke")
    config.optim.lr, config.num_train_steps, config.log_every_steps = 5e-3, 40, 1
    config.eval_every_steps = config.sample_every_steps = config.checkpoint_every_steps = 0
    train(config, tmp_path, SOURCE)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train/loss"] for x in lines if "train/loss" in x]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    first = picture(tmp_path)
    assert first.shape == (16, 24, 3)
    other = config.copy_and_resolve_references()
    other.style = "china"
    with pytest.raises(UserError, match=r"'china' \(style\) has changed"):
        modes.sample(other, tmp_path, SOURCE)


def test_wct_has_nothing_to_train():
    with pytest.raises(UserError, match="config.experiment='wct' has no training") as info:
        Run.build(style_wct.get_config("smoke"))
    assert "\n" not in str(info.value)
    with pytest.raises(UserError, match="has no training"):
        wct.build(style_wct.get_config(), (16, 16, 3))


def in_a_few_lines(name):
    """A family without a config."""
    if name == "feedforward":
        style = np.random.default_rng(0).random((12, 16, 3), np.float32)
        layers = {"content_layers": ("relu1_2",), "style_layers": ("relu1_1", "relu1_2")}
        vgg = FrozenVgg(VGG(layers["style_layers"]))
        return FeedforwardStyle(TransformNet(4, 1), vgg, style, **layers)
    encoder = FrozenVgg(VGG(("relu1_1", "relu2_1")))
    styles = None
    if name == "adain_styles":
        styles = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    return Adain(encoder, Decoder("relu2_1", encoder.widths), styles=styles)


@pytest.mark.parametrize("name", ["adain", "adain_styles", "feedforward"])
def test_a_loss_needs_no_config(name):
    family = in_a_few_lines(name)
    params, state = jax.jit(family.init)(jax.random.key(0))
    batch = {"image": jax.random.uniform(jax.random.key(1), (10, 12, 16, 3))}
    rngs = Rngs(jax.random.key(2), 0, jnp.arange(10))
    loss_of = lambda params: family.loss(params, state, batch, rngs)
    (loss, (terms, _)), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    assert {"content", "style"} <= terms.keys() and np.isfinite(loss)
    assert all(np.isfinite(g).all() and (g != 0).any() for g in jax.tree.leaves(grads))
    values = family.evaluate(params, state, batch, rngs)
    assert all(value.shape == (10,) for value in values.values())
    np.testing.assert_allclose(values["loss"].mean(), loss, rtol=1e-5)


@pytest.mark.parametrize(
    "module,overrides,message",
    [
        (style_adain, {"model.layer": "relu4_2"}, "config.model.layer='relu4_2'"),
        (style_adain, {"strength": 1.5}, "config.strength=1.5 must be in"),
        (style_adain, {"data.image_shape": (15, 16, 3)}, "multiples of 2"),
        (style_adain, {"batch_size": 1}, "config.batch_size=1 must be at least 2"),
        (style_feedforward, {"strength": 0.5}, "config.strength=0.5 must be 1"),
        (style_feedforward, {"data.image_shape": (10, 12, 3)}, "multiples of 4"),
        (
            style_feedforward,
            {"objective.style": "relaxed_emd"},
            "objective.style='relaxed_emd' is not known",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, module, overrides, message):
    config = module.get_config("smoke")
    config.update_from_flattened_dict(overrides)
    with pytest.raises(UserError, match=message) as info:
        train(config, tmp_path, SOURCE)
    assert "\n" not in str(info.value)
