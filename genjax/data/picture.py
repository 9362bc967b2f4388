"""One picture as a dataset of one example, and the pictures that are always there."""

import dataclasses
import hashlib
import importlib.resources
import json
from pathlib import Path

import numpy as np

from genjax.data.images import one_line, read_image
from genjax.data.sources import Source
from genjax.errors import UserError

# Photographs that come with scikit-learn, CC BY 2.0: by Yuichi Sakuraba and by dany13.
EMBEDDED = ("china", "flower")


def picture_path(name):
    """The file of a picture: a path, or a name in `EMBEDDED`; UserError where there is none."""
    if name in EMBEDDED:
        return Path(str(importlib.resources.files("sklearn.datasets.images") / f"{name}.jpg"))
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"there is no picture {one_line(name)!r}; give the path of one, or {_known()}"
        )
    return path


def _known():
    return " or ".join(f"'{name}'" for name in EMBEDDED)


def picture_source(name, split):
    """The dataset of one picture, the same in every split."""
    path = picture_path(name)
    status = path.stat()
    told = json.dumps([name, status.st_size, status.st_mtime_ns])
    return PictureSource(
        name=f"picture:{name}",
        version="0",
        split=split,
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
        class_names=(),
        size=1,
        path=str(path),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class PictureSource(Source):
    """The picture in the file `path`."""

    path: str

    def read(self, index, image_shape):
        image = read_image(self.path, image_shape)
        return np.stack([image] * len(index)), np.zeros(len(index), np.int32)
