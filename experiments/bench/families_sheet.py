"""Samples of several runs, a row each: docs/mnist_families.png.

python launch.py --config=... --workdir=DIR --mode=sample --config.sample.num=16   (of each run)
python -m experiments.bench.families_sheet --out=sheet.png 'caption=DIR/samples/NAME.npz' ...
"""

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from experiments.command import run_main
from genjax import plots
from genjax.data.npz import npz_source
from genjax.errors import UserError

OUT = flags.DEFINE_string("out", None, "The sheet, a PNG.", required=True)
COLUMNS = flags.DEFINE_integer("columns", 16, "Images of a row.", lower_bound=1)
LINE = 14  # height of a caption


def main(argv):
    rows = [row.rpartition("=") for row in argv[1:]]
    if not rows:
        raise UserError("no rows; each is 'caption=FILE.npz'")
    strips = []
    for caption, _, path in rows:
        images = npz_source(path, "all").images[: COLUMNS.value]
        picture = plots.grid(images, COLUMNS.value)
        strips.append((caption, Image.fromarray(np.repeat(picture, 3 // picture.shape[-1], -1))))
    width = max(strip.width for _, strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height + LINE for _, strip in strips)), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for caption, strip in strips:
        pen.text((2, y + 1), caption, fill="black")
        sheet.paste(strip, (0, y + LINE))
        y += strip.height + LINE
    sheet.save(OUT.value, pnginfo=plots.png_texts({"rows": dict(row[::2] for row in rows)}))


if __name__ == "__main__":
    run_main(main)
