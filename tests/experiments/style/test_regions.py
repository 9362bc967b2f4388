"""Regions of guides that pooling removes, in pictures of some dozen pixels, on random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import style_gatys
from experiments.style.frozen_vgg import FrozenVgg
from experiments.style.picture_loss import PictureLoss, present_regions
from experiments.style.style_transfer import complete
from genjax.errors import UserError
from genjax.models.vgg import VGG, reach
from genjax.runner.run import Run
from genjax.style.tiles import make_tiles

SIDE = 25  # odd: pooling drops the last row and column
LAYERS = ("relu1_1", "relu2_1")


def mask(*columns):
    """[25, 25, 1], 1 in those columns."""
    out = np.zeros((SIDE, SIDE, 1), np.float32)
    out[:, list(columns)] = 1
    return out


EDGE, LEFT, RIGHT = mask(SIDE - 1), mask(*range(12)), mask(*range(12, 24))


@pytest.fixture(scope="module")
def pictures():
    """A picture, its content and two styles; (parameters of a narrow VGG, the VGG)."""
    keys = jax.random.split(jax.random.key(0), 4)
    image, content = (jax.random.uniform(k, (1, SIDE, SIDE, 3)) for k in keys[:2])
    styles = [jax.random.uniform(k, (SIDE, SIDE, 3)) for k in keys[2:]]
    vgg = FrozenVgg(VGG(LAYERS, widths=(3, 4, 4, 4, 4), padding="replicate"))
    return image, content, styles, jax.jit(vgg.init)(jax.random.key(1)), vgg


def evaluate(pictures, masks, style_masks, layers=LAYERS, tile=0, **options):
    """The loss and its gradient at the picture, with as many styles as there are sets of masks."""
    image, content, styles, params, vgg = pictures
    styles = styles[: len(style_masks)]
    loss = PictureLoss(
        vgg,
        ("relu1_1",),
        layers,
        masks=jnp.stack(masks),
        style_shares=(1 / len(styles),) * len(styles),
        tiles=make_tiles(SIDE, SIDE, tile, *reach(LAYERS)) if tile else None,
        **options,
    )

    def value(image):
        targets = loss.targets(params, content, styles, [jnp.stack(m) for m in style_masks])
        return loss(image, params, targets, content)[0]

    return jax.jit(jax.value_and_grad(value))(image)


@pytest.mark.parametrize(
    "style,tile,relative",
    [("gram", 0, False), ("mean_std", 0, True), ("wasserstein", 0, True)]
    + [("gram", 13, True), ("mean_std", 13, False), ("wasserstein", 13, False)],
)
def test_an_empty_region_counts_as_nothing_at_its_layer(pictures, style, tile, relative):
    """In the picture, in the style or in both: the loss is that of the other regions."""
    options = {"style": style, "tile": tile, "relative": relative, "layers": ("relu2_1",)}
    options |= {"content_weight": 1.0, "style_weight": 1.0}
    expected, slope = evaluate(pictures, [LEFT, RIGHT], [[LEFT, RIGHT]], **options)
    assert np.isfinite(expected) and expected > 0
    own, other = [LEFT, EDGE, LEFT, EDGE, RIGHT], [LEFT, LEFT, EDGE, EDGE, RIGHT]
    value, gradient = evaluate(pictures, own, [other], **options)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("style", ["gram", "wasserstein"])
def test_of_two_styles_the_one_that_has_the_region_is_the_target(pictures, style):
    options = {"style": style, "layers": ("relu2_1",), "content_weight": 0.0}
    first, _ = evaluate(pictures, [LEFT], [[LEFT]], **options)
    value, _ = evaluate(pictures, [LEFT], [[LEFT], [EDGE]], **options)
    np.testing.assert_allclose(value, first, rtol=1e-5)


def test_all_layers_count_where_the_region_is_there(pictures):
    options = {"content_weight": 0.0}
    both, gradient = evaluate(pictures, [EDGE, LEFT], [[EDGE, LEFT]], **options)
    shallow, _ = evaluate(pictures, [EDGE, LEFT], [[EDGE, LEFT]], layers=("relu1_1",), **options)
    deep, _ = evaluate(pictures, [LEFT], [[LEFT]], layers=("relu2_1",), **options)
    np.testing.assert_allclose(both, (shallow + deep) / 2, rtol=1e-5)
    assert np.isfinite(gradient).all() and (gradient[0, :, -1] != 0).any()


def test_the_regions_that_are_said_to_be_left_are_those_of_the_loss():
    masks = np.stack([EDGE, LEFT, np.swapaxes(EDGE, 0, 1)])
    found = present_regions(masks, ("relu1_1", "pool1", "relu3_1"), 19)
    assert found == {
        "relu1_1": [True, True, True],
        "pool1": [False, True, False],
        "relu3_1": [False, True, False],
    }


def guided(tmp_path, names, **overrides):
    """The config of a run with these masks, for content and style."""
    masks = {"edge": EDGE, "left": LEFT, "right": RIGHT}
    for name in names:
        Image.fromarray(np.uint8(masks[name][..., 0] * 255)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (SIDE, SIDE), "teal").save(tmp_path / "in.png")
    paths = tuple(str(tmp_path / f"{name}.png") for name in names)
    config = style_gatys.get_config("smoke")
    picture = {"content": str(tmp_path / "in.png"), "style": str(tmp_path / "in.png")}
    layers = {"model.content_layers": ("relu1_1",), "model.style_layers": LAYERS}
    guides = {"guides.content": paths, "guides.style": paths, "sizes": (SIDE,)}
    config.update_from_flattened_dict({**picture, **layers, **guides, **overrides})
    return complete(config)


def test_the_mask_and_the_layer_are_named_before_anything_is_compiled(tmp_path, capsys):
    Run.build(guided(tmp_path, ["left", "edge"]))
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "config.guides" in x]
    assert "edge.png" in line and "relu2_1" in line and "left.png" not in line


def test_a_region_that_no_layer_sees_is_refused(tmp_path):
    config = guided(tmp_path, ["left", "edge"], **{"model.style_layers": ("relu2_1",)})
    with pytest.raises(UserError, match="edge.png.*relu2_1") as info:
        Run.build(config)
    assert "\n" not in str(info.value)


def test_a_layer_that_sees_no_region_is_refused(tmp_path):
    with pytest.raises(UserError, match="any region at relu2_1"):
        Run.build(guided(tmp_path, ["edge"]))
