"""What the instant ways of style transfer share: pictures in, the stylised picture out."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import choose, require
from experiments.run import say
from experiments.style_transfer import add_picture_fields, result_name
from genjax.errors import UserError
from genjax.models import vgg
from genjax.style import pictures
from genjax.style.color import COLORS, keep_color, match_color

# What of a trained stylizer's config may change when other pictures are drawn.
ALLOW = ("eval.", "content", "style", "more_styles", "style_shares", "strength", "size", "color")
ALLOW += ("style_size", "output.")


def add_fields(config):
    """The fields of stylizers at their defaults."""
    add_picture_fields(config)
    config.more_styles = ()  # further style pictures, blended
    config.style_shares = ()  # of all styles; () for equal
    config.strength = 1.0  # 0: the content's own features
    config.size = 512  # longer side of the result; 0: the content's own
    config.style_size = 512


def check(config):
    """Refuses what cannot be; returns the styles' shares."""
    choose(COLORS, config.color, "color")
    choose(pictures.KINDS, config.output.kind, "output.kind")
    count = 1 + len(config.more_styles)
    known = config.style_shares
    fits = not known or len(known) == count and min(known) >= 0 and sum(known) > 0
    require(fits, "style_shares", known, f"empty, or {count} numbers of at least 0")
    require(0 <= config.strength <= 1, "strength", config.strength, "in [0, 1]")
    for key in ("size", "style_size"):
        require(config[key] >= 0, key, config[key], "at least 0")
    shares = known or (1.0,) * count
    return tuple(s / sum(shares) for s in shares)


def read_pictures(config, layer, depth=19):
    """(content [H, W, 3], [style [H, W, 3]]) at their sizes, each side enough for `layer`."""
    stride = vgg.reach([layer], depth)[0]

    def read(name, key, long_side):
        found = pictures.size_of(name, key)
        pictures.check_size(found, key)
        size = found.scaled_to(long_side or max(found.height, found.width))
        if min(size.height, size.width) < 2 * stride:
            raise UserError(
                f"config.{key}: a picture of {found.width}x{found.height} pixels is {size.width}x"
                f"{size.height} here, but {layer} needs {2 * stride} pixels a side"
            )
        return pictures.read_rgb(name, key, size)

    content = read(config.content, "content", config.size)
    names = (config.style, *config.more_styles)
    styles = [read(name, "style", config.style_size) for name in names]
    if config.color == "histogram":
        styles = [match_color(style, content) for style in styles]
    return content, styles


def save_stylized(config, workdir, content, draw, stride, told):
    """Draws and saves the picture, and says how long drawing took.

    Args:
      content: [H, W, 3] in [0, 1].
      draw: images [1, H', W', 3] -> the same, stylised; H' and W' are multiples of `stride`.
      told: for the file and the report.

    Returns:
      {"seconds_first": with compilation, "seconds": without, ...}.
    """
    height, width = content.shape[:2]
    edge = [(0, -n % stride) for n in (height, width)]
    padded = jnp.asarray(np.pad(content, (*edge, (0, 0)), mode="reflect")[None])
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        image = jax.block_until_ready(draw(padded))
        seconds.append(time.perf_counter() - began)
    image = np.clip(np.asarray(image[0, :height, :width], np.float32), 0, 1)
    if config.color == "luminance":
        image = keep_color(image, content)
    size = pictures.Size(height, width)
    alpha = pictures.read_alpha(config.content, "content", size)
    told = {"content": config.content, "style": config.style, **told}
    path = Path(workdir) / "samples" / result_name(config)
    path = pictures.save_picture(path, image, alpha, config.output.kind, told)
    say(f"the picture is {path}; drawn in {seconds[1]:.2f} s")
    return {**told, "seconds_first": seconds[0], "seconds": seconds[1], "picture": str(path)}


def as_decoder(layers):
    """{"conv3_1": {"kernel", "bias"}} of `genjax.weights.vgg.load_decoder`."""
    return {name: {"kernel": kernel, "bias": bias} for name, kernel, bias in layers}


def check_decoder(layers, encoder_layer, widths, path):
    """Refuses a decoder that does not undo `encoder_layer` of a VGG of these widths."""
    name = encoder_layer.replace("relu", "conv")
    channels = widths[int(name[4]) - 1]
    if layers[0][0] != name or layers[0][1].shape[2] != channels:
        raise UserError(
            f"the decoder {path} begins with {layers[0][0]} of {layers[0][1].shape[2]} channels, "
            f"not with {name} of {channels}: it belongs to another encoder"
        )
