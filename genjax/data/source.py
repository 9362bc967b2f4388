"""What all kinds of data have in common: a split whose examples are read by their position."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np

from genjax.shapes import Int, Num, Shape

# Positions of examples.
Index: TypeAlias = Sequence[int] | Int[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split, not yet decoded. Can be sent to another process; it opens its files there.

    A source reads any of its examples by their position, and can tell without decoding one
    whether they are still the same.

    Attributes:
      name, version, split: identify it.
      fingerprint: changes when the data on disk changes; cheap to compute.
      class_names: empty where there are no labels.
      size: number of examples.
      dtype: of the images.
      summary: what a user should know before training; of a folder, what was taken for what.
    """

    name: str
    version: str
    split: str
    fingerprint: str
    class_names: tuple[str, ...]
    size: int
    dtype: ClassVar[type] = np.uint8
    summary: ClassVar[str] = ""

    def __len__(self) -> int:
        return self.size

    def checksum(self) -> str:
        """Returns a SHA-256 that a copy of the data at another place has too."""
        return self.fingerprint

    def read(
        self, index: Index, image_shape: Shape
    ) -> tuple[Num[np.ndarray, "b h w c"], Int[np.ndarray, " b"]]:
        """Decodes the examples at the positions `index`.

        Returns:
          (images [B, H, W, C] of type `dtype`, int32 labels [B]).

        Raises:
          BadImage: a picture cannot be read; names the first of them.
          UserError: the data is damaged, or its disk fails.
        """
        raise NotImplementedError


def sha256_of(text: str) -> str:
    """Returns the SHA-256 of a text as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
