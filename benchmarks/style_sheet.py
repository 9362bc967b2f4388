"""Contents in styles by all methods, side by side: docs/style_transfer.jpg.

The optimised pictures have relative terms, so that weights other than Keras's will do. Their
network is a distilled VGG-19 at the layers of their configs, but for the content, block4_conv2; for
one of them it is VGG-19 itself, which may end at relu3_1. Pictures that are in --workdir already
are not drawn again.

python -m benchmarks.style_sheet --out=sheet.jpg --workdir=DIR --contents=a.png,b.png
    --styles=c.jpg,d.jpg --vgg=vgg19_normalised.npz --vgg_decoder=decoder_relu3_1.npz
    --distilled='DIR/{}coder{}.npz' [--size=256] [--steps=150]
"""

from types import ModuleType
from typing import Any

from absl import flags
from PIL import Image, ImageDraw

from configs import style_adain, style_gatys, style_gatys_v1, style_w2, style_wct
from experiments.style.pair import Pair, pair_settings
from genjax.errors import UserError
from genjax.files import user_path
from genjax.runner.command import run_main
from genjax.runner.run import set_up_process
from genjax.runner.train import train

OUT = flags.DEFINE_string("out", None, "The sheet, a JPEG or PNG.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the runs.", required=True)
CONTENTS = flags.DEFINE_list("contents", ["china"], "Pictures.")
STYLES = flags.DEFINE_list("styles", ["flower"], "The style of each.")
VGG = flags.DEFINE_string("vgg", None, "VGG-19, normalised, to relu3_1 at least.", required=True)
DECODER = flags.DEFINE_string("vgg_decoder", None, "Its decoder from relu3_1.", required=True)
DISTILLED = flags.DEFINE_string(
    "distilled", None, "Distilled networks: en or de, then a level, for {}.", required=True
)
SIZE = flags.DEFINE_integer("size", 256, "Longer side of a picture.")
STEPS = flags.DEFINE_integer("steps", 150, "Steps of an optimisation.")

COLUMNS, MARGIN, CAPTION_HEIGHT, QUALITY = 4, 6, 14, 80

Method = tuple[ModuleType, dict[str, Any]]  # a config module, and overrides


def methods() -> dict[str, Method]:
    """Returns {caption of a picture: how it is made}."""
    size, steps = SIZE.value, STEPS.value
    deep = {
        "weights": DISTILLED.value.format("en", 5),
        "model.content_layers": ("block4_conv2",),
    }
    shallow = {
        "weights": VGG.value,
        "model.content_layers": ("block3_conv1",),
        "model.style_layers": ("block1_conv1", "block2_conv1", "block3_conv1"),
    }
    relative = {
        "objective.relative": True,
        "objective.content_weight": 0.05,
        "objective.style_weight": 1.0,
        "optim.eps": 1e-8,
        "sizes": (size,),
        "num_train_steps": steps,
    }
    smooth = {**relative, "objective.tv_weight": 0.1}
    sizes = {"sizes": (3 * size // 8, 9 * size // 16, size), "size_steps": (steps // 2,) * 3}
    wct = {"weights": DISTILLED.value.replace("{}", "en", 1)}
    wct["decoder"] = DISTILLED.value.replace("{}", "de", 1)
    adain = {"weights": VGG.value, "decoder": DECODER.value, "model.layer": "relu3_1"}
    instant = {"size": size, "style_size": size}
    return {
        f"second tutorial, {steps} steps": (style_gatys, {**smooth, **deep}),
        f"first tutorial, {steps} steps": (style_gatys_v1, {**relative, **deep}),
        "Wasserstein, coarse to fine": (style_w2, {**sizes, **deep}),
        f"Gram, VGG-19 to relu3_1, {steps} steps": (style_gatys, {**smooth, **shallow}),
        "AdaIN, VGG-19 to relu3_1": (style_adain, {**adain, **instant}),
        "WCT, 5 levels, strength 0.6": (style_wct, {**wct, **instant}),
    }


def draw(caption: str, method: Method, content: str, style: str) -> Image.Image:
    """Draws the picture of one method, or reads it where it was drawn before."""
    module, overrides = method
    config = module.get_config()
    config.update_from_flattened_dict({**overrides, "content": content, "style": style})
    config.sample_every_steps = config.checkpoint_every_steps = 0
    name = Pair(**pair_settings(config)).name
    folder = f"{name}_{caption.partition(',')[0]}".lower().replace(" ", "_")
    workdir = user_path(WORKDIR.value, "--workdir") / folder
    path = workdir / "samples" / f"{name}.png"
    if not path.exists():
        source = {"config_file": module.__file__, "arguments": "style_sheet"}
        if train(config, workdir, source) is None:
            raise SystemExit(1)
    return Image.open(path)


def make_sheet(cells: list[tuple[str, Image.Image]]) -> Image.Image:
    """Arranges pictures, which are scaled down in place, above their captions."""
    height = 0
    for _, picture in cells:
        picture.thumbnail((SIZE.value, SIZE.value * 2 // 3))
        height = max(height, picture.height)
    rows = -(-len(cells) // COLUMNS)
    across, down = SIZE.value + MARGIN, height + CAPTION_HEIGHT + MARGIN
    sheet = Image.new("RGB", (COLUMNS * across + MARGIN, rows * down + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (caption, picture) in enumerate(cells):
        x, y = MARGIN + i % COLUMNS * across, MARGIN + i // COLUMNS * down
        sheet.paste(picture.convert("RGB"), (x, y))
        pen.text((x, y + height + 1), caption, fill="black")
    return sheet


def main(argv: list[str]) -> None:
    """Draws all pictures and saves the sheet."""
    del argv
    set_up_process()
    if len(CONTENTS.value) != len(STYLES.value):
        counts = f"{len(CONTENTS.value)} and {len(STYLES.value)}"
        raise UserError(f"--contents and --styles must be equally many, not {counts}")
    cells = []
    for content, style in zip(CONTENTS.value, STYLES.value):
        cells += [("content", Image.open(content)), ("style", Image.open(style))]
        for caption, method in methods().items():
            cells.append((caption, draw(caption, method, content, style)))
    make_sheet(cells).save(user_path(OUT.value, "--out"), quality=QUALITY)


if __name__ == "__main__":
    run_main(main)
