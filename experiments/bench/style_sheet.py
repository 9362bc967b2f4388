"""Contents in styles by every way there is, side by side: docs/style_transfer.jpg.

The optimised pictures have relative terms, so that weights other than Keras's will do. They see a
distilled VGG-19 at the layers of their configs, but for the content, block4_conv2; one of them sees
VGG-19 itself, which may end at relu3_1. What is in --workdir already is not drawn again.

python -m experiments.bench.style_sheet --out=sheet.jpg --workdir=DIR --contents=a.png,b.png
    --styles=c.jpg,d.jpg --vgg=vgg19_normalised.npz --vgg_decoder=decoder_relu3_1.npz
    --distilled='DIR/{}coder{}.npz' [--size=256] [--steps=150]
"""

from pathlib import Path

from absl import flags
from PIL import Image, ImageDraw

from configs import style_adain, style_gatys, style_gatys_v1, style_w2, style_wct
from experiments import training
from experiments.command import run_main
from experiments.run import set_up_process
from experiments.stylize import result_name

OUT = flags.DEFINE_string("out", None, "The sheet, a JPEG or PNG.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go.", required=True)
CONTENTS = flags.DEFINE_list("contents", ["china"], "Pictures.")
STYLES = flags.DEFINE_list("styles", ["flower"], "The style of each.")
VGG = flags.DEFINE_string("vgg", None, "VGG-19, normalised, to relu3_1 at least.", required=True)
DECODER = flags.DEFINE_string("vgg_decoder", None, "Its decoder from relu3_1.", required=True)
DISTILLED = flags.DEFINE_string(
    "distilled", None, "Distilled networks: en or de, then a level, for {}.", required=True
)
SIZE = flags.DEFINE_integer("size", 256, "Longer side of a picture.")
STEPS = flags.DEFINE_integer("steps", 150, "Of an optimisation.")

COLUMNS, MARGIN, LINE, QUALITY = 4, 6, 14, 80


def ways():
    """{what a picture is called: its config}."""
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


def drawn(name, module, overrides, content, style):
    """The picture of one way, a PIL image."""
    config = module.get_config()
    config.update_from_flattened_dict({**overrides, "content": content, "style": style})
    config.sample_every_steps = config.checkpoint_every_steps = 0
    workdir = Path(WORKDIR.value) / f"{result_name(config)}_{name.partition(',')[0]}".lower()
    workdir = workdir.with_name(workdir.name.replace(" ", "_"))
    path = workdir / "samples" / f"{result_name(config)}.png"
    if not path.exists():
        source = {"config_file": module.__file__, "arguments": "style_sheet"}
        if training.train(config, workdir, source) is None:
            raise SystemExit(1)
    return Image.open(path)


def main(argv):
    del argv
    set_up_process()
    if len(CONTENTS.value) != len(STYLES.value):
        raise SystemExit("--contents and --styles must be as many")
    cells = []
    for content, style in zip(CONTENTS.value, STYLES.value):
        cells += [("content", Image.open(content)), ("style", Image.open(style))]
        for name, (module, overrides) in ways().items():
            cells.append((name, drawn(name, module, overrides, content, style)))
    height = 0
    for _, picture in cells:
        picture.thumbnail((SIZE.value, SIZE.value * 2 // 3))
        height = max(height, picture.height)
    rows = -(-len(cells) // COLUMNS)
    across, down = SIZE.value + MARGIN, height + LINE + MARGIN
    sheet = Image.new("RGB", (COLUMNS * across + MARGIN, rows * down + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, picture) in enumerate(cells):
        place = MARGIN + i % COLUMNS * across, MARGIN + i // COLUMNS * down
        sheet.paste(picture.convert("RGB"), place)
        pen.text((place[0], place[1] + height + 1), name, fill="black")
    sheet.save(OUT.value, quality=QUALITY)


if __name__ == "__main__":
    run_main(main)
