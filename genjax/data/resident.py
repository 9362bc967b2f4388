"""A whole dataset on the devices."""

from typing import Any

import flax.struct
import jax

from genjax.typing import AnyArray, Int


@flax.struct.dataclass
class Resident:
    """A dataset as arrays on the devices; a batch is taken inside of the train step.

    Images are stored flat: of [N, H, W, C] a TPU would copy all N images into another layout in
    every step.

    Attributes:
      images: [N, H * W * C], uint8; codes are uint16.
      labels: [N], int32.
      image_shape: (H, W, C).
    """

    images: Any  # or its shape, as every leaf of a pytree
    labels: Any
    image_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def take(self, index: Int[AnyArray, " b"]) -> dict[str, jax.Array]:
        """Returns {"image": [B, H, W, C], "label": [B]} of the examples `index`."""
        images = self.images[index].reshape(-1, *self.image_shape)
        return {"image": images, "label": self.labels[index]}
