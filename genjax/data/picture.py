"""One picture as a dataset of one example, and the pictures that are always available."""

import dataclasses
import hashlib
import importlib.resources
from pathlib import Path

import numpy as np

from genjax.data.images import read_image
from genjax.data.source import Index, Source
from genjax.errors import UserError, one_line
from genjax.files import user_path
from genjax.shapes import Int, Shape, UInt8

# Photographs that come with scikit-learn, CC BY 2.0: by Yuichi Sakuraba and by dany13.
EMBEDDED = ("china", "flower")


@dataclasses.dataclass(frozen=True, eq=False)
class PictureSource(Source):
    """The picture in the file `path`."""

    path: str

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        image = read_image(self.path, image_shape)
        return np.stack([image] * len(index)), np.zeros(len(index), np.int32)


def picture_path(name: str) -> Path:
    """Returns the file of a picture, which is named by its path or by a name in `EMBEDDED`.

    Raises:
      UserError: there is no such picture.
    """
    if name in EMBEDDED:
        return Path(str(importlib.resources.files("sklearn.datasets.images") / f"{name}.jpg"))
    path = user_path(name, "the picture")
    if not path.is_file():
        known = " or ".join(f"'{name}'" for name in EMBEDDED)
        raise UserError(f"there is no picture {one_line(name)!r}; give the path of one, or {known}")
    return path


def picture_source(name: str, split: str) -> PictureSource:
    """Returns the dataset of one picture, the same in every split; errors as `picture_path`."""
    path = picture_path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {one_line(path)}: {error.strerror}") from error
    return PictureSource(
        name=f"picture:{name}",
        version="0",
        split=split,
        fingerprint=hashlib.sha256(content).hexdigest(),
        class_names=(),
        size=1,
        path=str(path),
    )
