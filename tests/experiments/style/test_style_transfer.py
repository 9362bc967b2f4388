"""Style transfer end to end, at sizes of some dozen pixels and on random weights."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from configs import style_gatys, style_w2
from experiments.style.frozen_vgg import FrozenVgg
from experiments.style.picture_loss import PictureLoss
from experiments.style.style_transfer import LineSearchTransfer, StyleTransfer, complete
from genjax.errors import UserError
from genjax.models.vgg import VARIANTS, VGG, reach
from genjax.rng import Rngs
from genjax.runner.run import Run
from genjax.runner.train import train
from genjax.style.tiles import make_tiles
from genjax.train.checkpoint import Checkpoints
from genjax.train.signals import StopOnSignal
from genjax.train.state import Ema, init_state
from tests import torch_files

SOURCE = {"config_file": "a test", "arguments": ""}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """VGG with a few channels: what is tested here is not how much it computes."""
    slim = dataclasses.replace(VARIANTS["keras"], widths=(4, 6, 8, 8, 8))
    monkeypatch.setitem(VARIANTS, "keras", slim)


def gatys(**overrides):
    config = style_gatys.get_config("smoke")
    config.update_from_flattened_dict(
        {
            "sizes": (24,),
            "num_train_steps": 4,
            "sample_every_steps": 0,
            "checkpoint_every_steps": 2,
            "model.content_layers": ("relu1_1",),
            "model.style_layers": ("relu1_1", "relu1_2"),
            **overrides,
        }
    )
    return config


def terms(config, image=None):
    """The loss's terms and its gradient at a picture, by default the start."""
    run = Run.build(complete(config))
    state = jax.jit(run.init)()
    batch = run.train_data.batch(np.zeros(1, int), np.zeros(1, int))
    content = jnp.asarray(batch["image"] / 255.0, jnp.float32)
    image = state.params["image"] if image is None else image(content)

    def loss(image):
        params, batch = {"image": image}, {"image": content}
        value, (found, _) = run.family.loss(params, state.model_state, batch)
        return value, found

    (value, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(image)
    return {"loss": value, **found}, gradient


@pytest.mark.parametrize("relative", [False, True])
def test_a_picture_against_itself_is_0(relative):
    found, gradient = terms(
        gatys(
            **{
                "style": "china",
                "objective.relative": relative,
                "objective.tv_weight": 0.0,
            }
        )
    )
    # Style pictures are read as floats, contents through the dataset as bytes.
    assert found["content"] == 0 and found["style"] < (1e-4 if relative else 1e6)
    other, _ = terms(gatys(**{"objective.relative": relative}))
    assert other["content"] == 0 and other["style"] > 100 * found["style"]


@pytest.mark.parametrize("style,masks", [("gram", True), ("wasserstein", False)])
def test_tiles_change_nothing_but_rounding(tmp_path, style, masks):
    options = {
        "sizes": (45,),
        "objective.style": style,
        "objective.relative": True,
        "model.padding": "replicate",
        "model.content_layers": ("relu2_1",),
        "model.style_layers": ("relu1_1", "relu2_1"),
    }
    if masks:
        for side in (0, 1):
            half = np.zeros((8, 8), np.uint8)
            half[:, 4 * side : 4 * side + 4] = 255
            Image.fromarray(half).save(tmp_path / f"{side}.png")
        paths = tuple(str(tmp_path / f"{side}.png") for side in (0, 1))
        options |= {"guides.content": paths, "guides.style": paths[::-1]}
    noisy = lambda content: content + 0.1 * jax.random.normal(jax.random.key(0), content.shape)
    whole, gradient = terms(gatys(**options), noisy)
    tiled, gradient_t = terms(gatys(**options, tile=8), noisy)
    for name, value in whole.items():
        np.testing.assert_allclose(tiled[name], value, rtol=2e-4)
    assert np.abs(gradient_t - gradient).max() < 2e-3 * np.abs(gradient).max()


def test_masks_keep_regions_apart(tmp_path):
    """With one mask a region's loss does not look at pixels far outside of it."""
    left = np.zeros((24, 24), np.uint8)
    left[:, :8] = 255
    Image.fromarray(left).save(tmp_path / "left.png")
    guide = (str(tmp_path / "left.png"),)
    config = gatys(
        **{
            "guides.content": guide,
            "guides.style": guide,
            "objective.content_weight": 0.0,
            "objective.tv_weight": 0.0,
        }
    )
    _, gradient = terms(config)
    columns = np.abs(gradient[0]).sum((0, 2))
    assert (columns[:7] > 0).all() and (columns[12:] == 0).all()


def test_styles_are_blended():
    only = lambda name, **more: float(terms(gatys(style=name, **more))[0]["style"])
    blend = {"more_styles": ("china",)}
    first = only("flower", **blend, style_shares=(1.0, 0.0))
    second = only("flower", **blend, style_shares=(0.0, 1.0))
    np.testing.assert_allclose(first, only("flower"), rtol=1e-4)
    np.testing.assert_allclose(second, only("china"), rtol=1e-3, atol=1e-6 * first)
    assert second < only("flower", **blend) < first


def test_resuming_is_exact(tmp_path, monkeypatch):
    config = lambda: gatys(**{"ema.decay": 0.5, "start.from": "blend"})
    train(config(), tmp_path / "whole", SOURCE)

    def stop(signals, step):
        signals.received = "SIGTERM" if step == 3 else None
        return step == 3

    with monkeypatch.context() as patch:
        patch.setattr(StopOnSignal, "stop", stop)
        assert train(config(), tmp_path / "stopped", SOURCE) is None
    train(config(), tmp_path / "stopped", SOURCE)
    for name in ("samples/china_flower.png", "metrics.jsonl"):
        both = [(tmp_path / run / name).read_bytes() for run in ("whole", "stopped")]
        assert both[0] == both[1]
    saved = Checkpoints(tmp_path / "whole/checkpoints").restore(
        Run.build(complete(config())).template()
    )[0]
    assert "style" in saved.model_state and "vgg" not in saved.model_state


def test_from_coarse_to_fine(tmp_path):
    """Each size starts with the picture and the moments of the one before."""
    config = style_w2.get_config("smoke")
    config.update_from_flattened_dict(
        {
            "sizes": (20, 30),
            "size_steps": (3, 1),
            "num_train_steps": 1000,  # which those replace
            "model.content_layers": ("relu1_1",),
            "model.style_layers": ("relu1_1",),
            "objective.style": "mean_std",
            "output.kind": "png16",
        }
    )
    train(config, tmp_path, SOURCE)
    shapes = []
    for folder in ("size_00020", "size_00030"):
        trained = json.loads((tmp_path / folder / "config.json").read_text())["config"]
        shapes.append(tuple(trained["data"]["image_shape"]))
    assert shapes == [(13, 20, 3), (20, 30, 3)]
    with Image.open(tmp_path / "samples" / "china_flower.png") as picture:
        assert picture.size == (30, 20)

    fine = complete(config.copy_and_resolve_references())
    fine.size_index, fine.init_from = 1, str(tmp_path / "size_00020")
    state = jax.jit(Run.build(complete(fine)).init)()
    coarse = np.asarray(Image.open(tmp_path / "size_00020/figures/image.png"), np.float32) / 255
    shrunk = jax.image.resize(state.params["image"][0], coarse.shape, "linear")
    assert np.abs(shrunk - coarse).mean() < 0.05
    counts = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 0]
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 4]
    assert max(int(c) for c in counts) == 3
    assert moments and all(m.shape == (1, 20, 30, 3) and np.abs(m).max() > 0 for m in moments)


def test_lbfgs_goes_down_with_every_step(tmp_path):
    options = {"num_train_steps": 6, "log_every_steps": 1, "objective.relative": True}
    options |= {"objective.content_weight": 1.0, "objective.style_weight": 1.0}
    options |= {"objective.tv_weight": 0.0, **LBFGS}
    options |= {"model.style_layers": ("relu1_1",), "checkpoint_every_steps": 0}
    report = train(gatys(**options), tmp_path, SOURCE)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    losses.append(report["eval/loss"])
    assert len(losses) == 7 and (np.diff(losses) < 0).all() and losses[-1] < 0.6 * losses[0]


def a_loss(**settings):
    """A loss without a config, its VGG's parameters, and a content and a style picture."""
    layers = ("relu1_1", "relu2_1")
    loss = PictureLoss(FrozenVgg(VGG(layers)), layers[1:], layers, relative=True, **settings)
    params = jax.jit(loss.vgg.init)(jax.random.key(0))
    content, style = jax.random.uniform(jax.random.key(1), (2, 1, 24, 32, 3))
    return loss, params, content, style[0]


def test_the_loss_of_a_pair_needs_no_config():
    loss, params, content, style = a_loss(tv_weight=1.0)
    targets = loss.targets(params, content, [style])
    (value, found), gradient = jax.value_and_grad(loss, has_aux=True)(
        0.9 * content, params, targets
    )
    weighted = 1e4 * found["content"] + 1e-2 * found["style"] + found["total_variation"]
    np.testing.assert_allclose(value, weighted, rtol=1e-6)
    assert gradient.shape == content.shape and (gradient != 0).mean() > 0.99
    at_style = loss.targets(params, style[None], [style])
    _, found = loss(style[None], params, at_style)
    assert found["content"] == 0 and found["style"] == 0

    tiles = make_tiles(24, 32, 8, *reach(loss.style_layers))
    tiled = dataclasses.replace(loss, tiles=tiles, vgg=FrozenVgg(VGG(loss.style_layers)))
    value_by_tiles, _ = tiled(0.9 * content, params, targets, content)
    np.testing.assert_allclose(value_by_tiles, value, rtol=1e-3)


@pytest.mark.parametrize("kind", [StyleTransfer, LineSearchTransfer])
def test_a_picture_is_optimised_without_a_config(kind):
    loss, _, content, style = a_loss(content_weight=1.0, style_weight=1.0)
    family = kind(loss, styles=[style], noise=0.5)
    images = (255 * content).astype(jnp.uint8)
    tx = family.optimizer(optax.lbfgs() if family.line_search else optax.adam(0.02))
    ema = Ema(decay=0.9)

    @jax.jit
    def start():
        init = lambda key: family.init(key, images)
        return init_state(0, init, lambda params: family.init_optimizer(tx, params), ema)

    state, batch = start(), {"image": images / 255.0, "slot": jnp.arange(1)}

    @jax.jit
    def step(state):
        rngs = Rngs(state.rng, state.step, batch["slot"])
        return family.train_step(state, batch, rngs, tx, ema)

    losses = []
    for _ in range(4):
        state, metrics = step(state)
        losses.append(float(metrics["loss"]))
    assert (np.diff(losses) < 0).all() and losses[-1] < 0.8 * losses[0]
    assert state.params["image"].shape == content.shape and int(state.step) == 4
    values = family.evaluate(state.eval_params, state.model_state, batch)
    assert {"loss", "content_squares_vgg19", "style_gram_vgg19", "total_variation"} == set(values)
    image = state.params["image"]
    assert family.line_search or (image.min() == 0 and image.max() == 1)


@pytest.mark.parametrize("color", ["luminance", "histogram"])
def test_alpha_and_colors(tmp_path, color):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    pixels[:, :15, 3], pixels[:, 15:, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "in.png")
    config = gatys(content=str(tmp_path / "in.png"), color=color, sizes=(30,), num_train_steps=1)
    train(config, tmp_path / "run", SOURCE)
    with Image.open(tmp_path / "run/samples/in_flower.png") as picture:
        assert picture.mode == "RGBA" and picture.size == (30, 20)
        alpha = np.asarray(picture)[..., 3]
    np.testing.assert_array_equal(alpha, pixels[..., 3])


LBFGS = {"optim.name": "lbfgs", "optim.lr": 1e-3, "optim.b1": 0.9, "optim.eps": 1e-8}
LBFGS |= {"objective.clip": False}

WRONG = {
    "content_layer": ({"model.content_layers": ("relu9_1",)}, "'relu9_1' is not a layer of VGG-19"),
    "style": ({"objective.style": "gramm"}, "did you mean 'gram'"),
    "sizes": ({"sizes": (64, 32)}, "from small to large"),
    "weights": ({"weights": "/none.h5"}, "no file of weights at /none.h5.*weights=random runs"),
    "shares": (
        {"more_styles": ("china",), "style_shares": (1.0,)},
        "config.style_shares=.*2 numbers",
    ),
    "no_shares": ({"style_shares": (1.0,)}, "config.style_shares=.* with config.more_styles="),
    "data": ({"data.name": "mnist"}, "config.data.name='mnist' must be empty"),
    "shape": ({"data.image_shape": (64, 64, 3)}, "data.image_shape=.*follows from config.sizes"),
    "flip": ({"data.flip": "random"}, "config.data.flip='random' must be 'none'"),
    "steps": ({"size_steps": (3,)}, "config.num_train_steps=4 must be 1000 with config.size_steps"),
    "run_of_sizes": ({"sizes": (24, 32), "size_index": 1}, "every size is trained in turn"),
    "guides": ({"guides.content": ("a.png",)}, "as many masks"),
    "tile": ({"objective.style": "relaxed_emd", "tile": 8}, "config.tile=8 must be 0"),
    "clip": ({**LBFGS, "objective.clip": True}, "config.objective.clip=True must be False"),
    "adams": ({"optim.name": "lbfgs"}, "config.optim.lr=0.02 .*optim.b1, config.optim.eps"),
    "kind": ({"output.kind": "gif"}, "config.output.kind='gif' is not known"),
    "start": ({"start.from": "random"}, "config.start.from='random' is not known"),
    "depth": ({"model.depth": 17}, "config.model.depth=17 must be 16 or 19"),
    "size_index": ({"size_index": 1}, "config.size_index=1 must be less than 1"),
    "layer_weights": ({"model.style_layer_weights": (1.0,)}, "must be empty, or 2 numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_line(tmp_path, name):
    overrides, message = WRONG[name]
    with pytest.raises(UserError, match=message) as info:
        train(gatys(**overrides), tmp_path, SOURCE)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "size,message",
    [
        ((1, 1), "1x1 pixels shows nothing"),
        ((20000, 1), "20000x1 pixels shows nothing"),
        ((400, 17), "17 pixels is 32x1 .* need 8 pixels a side"),
    ],
)
def test_pictures_that_are_too_small_or_narrow(tmp_path, size, message):
    Image.new("RGB", size).save(tmp_path / "in.png")
    for key in ("content", "style"):
        layers = {"model.style_layers": ("relu3_1",), "sizes": (32,)}
        config = gatys(**{key: str(tmp_path / "in.png")}, **layers)
        with pytest.raises(UserError, match=f"config.{key}: .*{message}"):
            train(config, tmp_path / "run", SOURCE)


def test_other_families_have_no_line_search(smoke_config):
    with pytest.raises(UserError, match="optim.name='lbfgs' must be another with .*'vae'"):
        Run.build(smoke_config(**{"optim.name": "lbfgs", "optim.lr": 1e-3}))


def test_weights_that_would_run_something(launch, tmp_path):
    """A file of PyTorch whose pickle calls os.system: one line, exit code 2, nothing run."""
    command = torch_files.text(f"touch {tmp_path}/exploded")
    bomb = b"\x80\x02cposix\nsystem\n" + command + b"\x85R."
    members = {"a/data.pkl": bomb, "a/byteorder": "little", "a/version": "3\n"}
    (tmp_path / "vgg19.pth").write_bytes(torch_files.zip_of(members))
    made = launch(
        "--config=configs/style_gatys.py:smoke",
        f"--config.weights={tmp_path}/vgg19.pth",
        f"--workdir={tmp_path}/run",
    )
    assert made.returncode == 2 and made.stderr.count("\n") == 1
    assert f"error: cannot read the weights {tmp_path}/vgg19.pth: " in made.stderr
    assert "its pickle asks for 'posix system'" in made.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vgg19.pth"]


def test_the_command_line(launch, tmp_path):
    """A text file called .jpg: one line, exit code 2, nothing made."""
    (tmp_path / "text.jpg").write_text("hello")
    made = launch(
        "--config=configs/style_gatys.py:smoke",
        f"--config.content={tmp_path}/text.jpg",
        f"--workdir={tmp_path}/run",
    )
    assert made.returncode == 2 and not (tmp_path / "run").exists()
    assert made.stderr.count("\n") == 1 and "text.jpg: it is not a picture" in made.stderr
