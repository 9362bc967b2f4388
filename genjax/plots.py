"""Pictures: grids of images, diagrams, and PNG files with their provenance."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genjax.errors import RunError
from genjax.files import whole_file
from genjax.typing import AnyArray, Float, Int, Num, Shape, Shaped, UInt8

# IPTC's term for media made by a trained model; tools that show "AI-generated" look for it in XMP.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)


_LONGEST = 40  # characters of a name in a diagram


# --- Grids ----------------------------------------------------------------------------------------


class PixelsNotFinite(RunError):
    """Something that was to be shown has NaN or infinity: no picture is better than a black one."""


def check_finite(
    values: Num[AnyArray, "*shape"] | Sequence[float | int],
    what: str = "images",
    numbers: Sequence[int] | Int[AnyArray, " n"] | None = None,
) -> None:
    """Raises a PixelsNotFinite for values to be shown that are not finite.

    Args:
      values: one picture [H, W, C], or images or points along the first axis.
      what: their name in the message.
      numbers: of the images, for the message; by default 0, 1, ...
    """
    values = np.asarray(values)
    if values.dtype.kind in "iub" or values.size == 0:
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if finite.all():
        return
    wrong = f"the picture ({what})"
    if values.ndim != 3:
        bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
        named = bad if numbers is None else np.asarray(numbers)[bad]
        more = f", and {len(bad) - 8} more," if len(bad) > 8 else ""
        which = ", ".join(map(str, named[:8]))
        wrong = f"{len(bad)} of {len(finite)} {what} (number {which}{more.rstrip(',')})"
    share = 1 - finite.mean()
    raise PixelsNotFinite(
        f"{wrong}: {share:.2g} of the values are NaN or infinity, so nothing is drawn; look at the "
        "loss and the gradient norm in metrics.jsonl, at the inputs and weights, and at the "
        "options this was drawn with (guidance, temperature, steps, config.compute_dtype)"
    )


def to_uint8(
    images: Num[AnyArray, "*shape"] | Sequence[float | int],
    what: str = "images",
    numbers: Sequence[int] | Int[AnyArray, " n"] | None = None,
) -> UInt8[np.ndarray, "*shape"]:
    """Rounds images in [0, 1] to uint8; values outside are clipped.

    Args:
      images: of any shape.
      what, numbers: for the message, as in `check_finite`.

    Raises:
      PixelsNotFinite: values are NaN or infinity.
    """
    check_finite(images, what, numbers)
    return (np.clip(np.asarray(images, np.float32), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def grid(
    images: Shaped[AnyArray, "n h w c"], columns: int | None = None, padding: int = 2
) -> Shaped[np.ndarray, "height width c"]:
    """Arranges images in a picture [rows * (h + p) + p, columns * (w + p) + p, c].

    Args:
      images: of any dtype.
      columns: images per row; by default the picture is as square as n allows.
      padding: width p of the white lines around the images, in pixels.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    white = 255 if images.dtype == np.uint8 else 1
    cell_h, cell_w = height + padding, width + padding
    out = np.full(
        (rows * cell_h + padding, columns * cell_w + padding, channels), white, images.dtype
    )
    for i, image in enumerate(images):
        y, x = padding + i // columns * cell_h, padding + i % columns * cell_w
        out[y : y + height, x : x + width] = image
    return out


def cells(
    picture: Shaped[np.ndarray, "height width c"],
    image_shape: Shape,
    count: int,
    padding: int = 2,
) -> Shaped[np.ndarray, "n h w c"]:
    """Cuts the first images, at most `count`, out of a picture made by `grid`."""
    height, width, channels = image_shape
    rows = (len(picture) - padding) // (height + padding)
    columns = (picture.shape[1] - padding) // (width + padding)
    images = picture[padding:, padding:].reshape(
        rows, height + padding, columns, width + padding, channels
    )[:, :height, :, :width]
    return images.swapaxes(1, 2).reshape(-1, *image_shape)[:count]


# --- Files ----------------------------------------------------------------------------------------


def save_png(
    path: str | Path,
    image: Num[AnyArray, "h w c"],
    provenance: Mapping[str, Any],
) -> None:
    """Writes a generated picture, marked as synthetic.

    Args:
      path: ends in .png.
      image: uint8, or float in [0, 1]; of 1 or 3 channels.
      provenance: {name: value}, everything needed to generate the picture again, e.g. config, step
        and seed; written to text fields of the PNG, as is the mark.
    """
    image = np.asarray(image)
    image = image if image.dtype == np.uint8 else to_uint8(image)
    info = png_texts(provenance)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        picture.save(partial, format="png", pnginfo=info)


def png_texts(provenance: Mapping[str, Any]) -> PngInfo:
    """Returns a PNG's text fields: {name: value} of `provenance`, and the mark as synthetic."""
    info = PngInfo()
    info.add_text("Software", "genjax")
    info.add_text("Source", "synthetic: generated by a trained model")
    for name, value in provenance.items():
        # File names may contain bytes that are not Unicode.
        text = str(value).encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")
        info.add_text(f"genjax:{name}", text)
    info.add_itxt("XML:com.adobe.xmp", XMP)
    return info


# --- Diagrams -------------------------------------------------------------------------------------


def curves(
    lines: Sequence[Mapping[str, float | int]], prefixes: tuple[str, ...] = ("train/", "eval/")
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Plots every metric over steps, with one panel per term for training and evaluation.

    Terms that differ only in two digits at the end, such as those of latents or levels, share a
    panel.

    Args:
      lines: {"step": int, "<prefix><term>": float} each, as in metrics.jsonl.
      prefixes: the prefixes of the metrics to plot.

    Returns:
      The picture, or None if there are no such metrics.
    """
    panels = _series_by_term(lines, prefixes)
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    plt = _pyplot()
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.0 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (term, series) in zip(axes.flat, sorted(panels.items())):
        for key, points in series.items():
            marker = "o-" if key.startswith("eval/") else "-"
            label = key.split("/")[0] if len(series) <= len(prefixes) else key[-2:]
            axis.plot(*zip(*points), marker, label=plain_text(label), linewidth=1, markersize=3)
        axis.set_title(plain_text(term))
        axis.set_xlabel("step")
        axis.legend(fontsize=None if len(series) < 8 else 5, ncols=-(-len(series) // 8))
        axis.grid(alpha=0.3)
    return _picture(figure)


def _series_by_term(
    lines: Sequence[Mapping[str, float | int]], prefixes: tuple[str, ...]
) -> dict[str, dict[str, list[tuple[float | int, float | int]]]]:
    """Returns {term: {metric: [(step, value)]}}; terms are without prefix and final two digits."""
    panels = {}
    for line in lines:
        for key in line:
            for prefix in prefixes:
                if key.startswith(prefix):
                    term = re.sub(r"_\d\d$", "", key.removeprefix(prefix))
                    panels.setdefault(term, {}).setdefault(key, [])
    for line in lines:
        for series in panels.values():
            for key, points in series.items():
                if key in line:
                    points.append((line["step"], line[key]))
    return panels


def confusion(
    matrix: Int[np.ndarray, "k k"], class_names: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a confusion matrix, each row divided by its sum.

    Args:
      matrix: counts; rows are true classes, columns predicted ones.
      class_names: of all k classes.
    """
    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    plt = _pyplot()
    side = 2.0 + 0.45 * min(count, 30)
    figure, axis = plt.subplots(figsize=(side, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if count <= 30:
        axis.set_xticks(range(count), map(plain_text, class_names), rotation=90)
        axis.set_yticks(range(count), map(plain_text, class_names))
        for i, j in np.argwhere(matrix > 0):
            color = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, matrix[i, j], ha="center", va="center", color=color, fontsize=7)
    return _picture(figure)


def scatter(
    points: Float[AnyArray, "n 2"],
    labels: Int[AnyArray, " n"],
    class_names: Sequence[str],
    axis_names: Sequence[str] = ("", ""),
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws points, coloured by label; a PixelsNotFinite for points that are not finite."""
    check_finite(points, "points")
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 5.4))
    count = len(class_names)
    colors = plt.get_cmap("tab10" if count <= 10 else "turbo", max(count, 1))
    drawn = axis.scatter(*points.T, c=labels, cmap=colors, vmin=-0.5, vmax=count - 0.5, s=4)
    if 1 < count <= 30:
        bar = figure.colorbar(drawn, ticks=range(count))
        bar.ax.set_yticklabels(map(plain_text, class_names))
    axis.set_xlabel(plain_text(axis_names[0]))
    axis.set_ylabel(plain_text(axis_names[1]))
    axis.grid(alpha=0.3)
    return _picture(figure)


def bars(heights: Num[AnyArray, " n"], name: str, quantity: str) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a bar chart; `name` labels the numbers of the bars, `quantity` their heights.

    Raises:
      PixelsNotFinite: heights are NaN or infinity.
    """
    check_finite(heights, f"bars of {quantity}")
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    axis.bar(range(len(heights)), heights)
    axis.set_xlabel(plain_text(name))
    axis.set_ylabel(plain_text(quantity))
    axis.grid(alpha=0.3, axis="y")
    return _picture(figure)


def log_log(
    x: Sequence[float | int],
    panels: Mapping[str, Mapping[str, Sequence[float | int]]],
    x_label: str,
    y_label: str,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws lines on two logarithmic axes.

    Args:
      x: the horizontal positions of all lines.
      panels: {title: {name of a line: its values}}.
      x_label: of all panels.
      y_label: of all panels.
    """
    plt = _pyplot()
    size = (4.6 * len(panels), 4.0)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    for axis, (title, lines) in zip(axes.flat, panels.items()):
        for name, y in lines.items():
            axis.loglog(x, y, "o-", label=plain_text(name), linewidth=1, markersize=3)
        axis.set_title(plain_text(title))
        axis.set_xlabel(plain_text(x_label))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel(plain_text(y_label))
    axes[0, -1].legend(fontsize=7)
    return _picture(figure)


def plain_text(text: object) -> str:
    """Returns text that Matplotlib draws as it is: no formulas, in one line, of bounded length."""
    printable = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in str(text).encode("utf-8", "backslashreplace").decode()
    )
    short = printable if len(printable) <= _LONGEST else f"{printable[: _LONGEST - 3]}..."
    # A label that begins with "_" is left out of a legend.
    return re.sub("^_", "\u200a_", short.replace("$", r"\$"))


def _pyplot() -> ModuleType:
    """Imports matplotlib.pyplot, which takes a second, when there is something to draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _picture(figure: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Renders and closes a Matplotlib figure."""
    buffer = io.BytesIO()
    try:
        for text in figure.findobj(lambda artist: hasattr(artist, "set_usetex")):
            text.set_usetex(False)  # a user's matplotlibrc may want LaTeX
        with warnings.catch_warnings():  # of letters that the font lacks, and of long names
            warnings.simplefilter("ignore", UserWarning)
            figure.tight_layout()
            figure.savefig(buffer, format="png", dpi=100)
    finally:
        _pyplot().close(figure)
    return np.asarray(Image.open(buffer).convert("RGB"))
