import warnings

import numpy as np
import pytest
from PIL import Image

from genjax import plots


def test_grid_puts_every_image_where_it_belongs():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 2, 3, 1), np.uint8)
    out = plots.grid(images, columns=2, padding=1)
    assert out.shape == (3 * 3 + 1, 2 * 4 + 1, 1)
    for i in range(5):
        y, x = 1 + i // 2 * 3, 1 + i % 2 * 4
        assert (out[y : y + 2, x : x + 3] == i).all()
    assert (out[0] == 255).all() and (out[7:9, 5:8] == 255).all()  # border, empty cell
    assert plots.grid(images, columns=5, padding=0).shape == (2, 15, 1)


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(
        plots.to_uint8([-1, 0, 0.4999 / 255, 0.5, 1, 7]), [0, 0, 0, 128, 255, 255]
    )
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(plots.to_uint8(every / 255.0), every)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_finite_becomes_no_pixel(bad, dtype):
    images = np.full((12, 2, 3, 1), 0.5, dtype)
    images[[3, 7], 1, 2] = bad
    with pytest.raises(plots.PixelsNotFinite, match=r"^2 of 12 images \(number 3, 7\): .* look at"):
        plots.to_uint8(images)
    with pytest.raises(plots.PixelsNotFinite, match=r"2 of 12 samples \(number 103, 107\)"):
        plots.to_uint8(images, "samples", np.arange(100, 112))
    with pytest.raises(plots.PixelsNotFinite, match="^the picture"):
        plots.to_uint8(images[3])
    images[:] = bad
    with pytest.raises(
        plots.PixelsNotFinite, match="12 of 12 .*number 0, .* 7, and 4 more"
    ) as info:
        plots.to_uint8(images)
    assert "\n" not in str(info.value) and info.value.exit_code == 1


def test_a_number_too_large_for_float32_is_no_white_pixel():
    with pytest.raises(plots.PixelsNotFinite):
        plots.to_uint8(np.full((1, 1, 1, 1), 1e300))


def test_nothing_is_written_of_a_picture_that_is_not_finite(tmp_path):
    with pytest.raises(plots.PixelsNotFinite):
        plots.save_png(tmp_path / "a.png", np.full((4, 4, 3), np.nan), {})
    assert not list(tmp_path.iterdir())


def test_diagrams_leave_out_no_point_in_silence():
    points = np.zeros((5, 2), np.float32)
    points[4, 1] = np.nan
    with pytest.raises(plots.PixelsNotFinite, match="1 of 5 points .number 4"):
        plots.scatter(points, np.zeros(5, int), ("a", "b"))
    with pytest.raises(plots.PixelsNotFinite, match="1 of 2 bars of frequency"):
        plots.bars(np.array([1.0, np.nan]), "code", "frequency")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_says_that_it_is_synthetic_and_how_to_make_it_again(tmp_path, channels):
    image = np.random.RandomState(0).randint(0, 256, (6, 5, channels)).astype(np.uint8)
    path = tmp_path / "deep" / "a.png"
    plots.save_png(path, image, {"config": "configs/x.py", "step": 7, "seed": 3})
    with Image.open(path) as read:
        text = read.text
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)
    assert "synthetic" in text["Source"]
    assert (text["genjax:config"], text["genjax:step"], text["genjax:seed"]) == (
        "configs/x.py",
        "7",
        "3",
    )
    assert "trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_curves_draw_a_panel_a_term():
    lines = [{"step": s, "train/loss": 1 / s, "train/kl": s} for s in range(1, 9)]
    picture = plots.curves([*lines, {"step": 8, "eval/kl": 3.0}])
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 5
    assert plots.curves([]) is None


NAMES = (
    "a$b$",
    "$x_{",
    r"\frac",
    "_x",
    "",
    "x" * 500,
    "日本",
    "😀",
    "\udcff",
    "a\nb\0",
    "$",
    r"\$5$",
)


@pytest.mark.parametrize("latex", [False, True])
def test_names_of_data_are_drawn_as_text(latex, monkeypatch):
    """Formulas, control characters and bytes that are not Unicode; a user who prefers LaTeX."""
    plots._pyplot()
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", latex)
    count = len(NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plots.confusion(np.eye(count, dtype=int), NAMES).ndim == 3
        plots.scatter(np.eye(count, 2), np.arange(count), NAMES, NAMES[:2])
        plots.bars(np.ones(3), NAMES[0], NAMES[1])
        plots.log_log([1, 2], {NAMES[0]: {name: [1, 2] for name in NAMES}}, NAMES[1], NAMES[0])
        plots.curves([{"step": i, f"train/{NAMES[1]}": i} for i in range(3)])
    assert not matplotlib.pyplot.get_fignums()


def test_a_dollar_looks_like_a_dollar():
    assert plots.plain_text("$") == r"\$" and plots.plain_text("a\nb\udcff") == r"a\nb\udcff"
    one, two = (plots.bars(np.ones(2), name, "") for name in ("$a$", "xax"))
    assert one.shape == two.shape and (one != two).any()


def test_png_fields_take_any_name(tmp_path):
    plots.save_png(tmp_path / "a.png", np.zeros((2, 2, 1)), {"path": "caf\udce9 日本 \0"})
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.text["genjax:path"] == r"caf\udce9 日本 \x00"
