"""Samples of several runs, a row for each: docs/mnist_families.png.

python launch.py --config=... --workdir=DIR --mode=sample --config.sample.num=16   (of each run)
python -m benchmarks.families_sheet --out=sheet.png 'caption=DIR/samples/NAME.npz' ...
"""

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from genjax import plots
from genjax.data.npz import npz_source
from genjax.errors import UserError
from genjax.files import user_path
from genjax.runner.command import run_main

OUT = flags.DEFINE_string("out", None, "The sheet, a PNG.", required=True)
COLUMNS = flags.DEFINE_integer("columns", 16, "Images in a row.", lower_bound=1)
CAPTION_HEIGHT = 14


def main(argv: list[str]) -> None:
    """Draws and saves the sheet."""
    rows = [row.rpartition("=") for row in argv[1:]]
    if not rows:
        raise UserError("no rows: give 'caption=FILE.npz' for each")
    strips = []
    for caption, _, path in rows:
        images = npz_source(user_path(path, "an .npz file"), "all").images[: COLUMNS.value]
        picture = plots.grid(images, COLUMNS.value)
        strips.append((caption, Image.fromarray(np.repeat(picture, 3 // picture.shape[-1], -1))))
    width = max(strip.width for _, strip in strips)
    height = sum(strip.height + CAPTION_HEIGHT for _, strip in strips)
    sheet = Image.new("RGB", (width, height), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for caption, strip in strips:
        pen.text((2, y + 1), caption, fill="black")
        sheet.paste(strip, (0, y + CAPTION_HEIGHT))
        y += strip.height + CAPTION_HEIGHT
    texts = plots.png_texts({"rows": dict(row[::2] for row in rows)})
    sheet.save(user_path(OUT.value, "--out"), pnginfo=texts)


if __name__ == "__main__":
    run_main(main)
