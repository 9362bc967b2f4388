"""Networks that stylize images in one pass: decoders of VGG's features, and `TransformNet`.

`Decoder` mirrors VGG from a layer reluB_1 back to pixels: 3x3 convolutions with reflection padding,
nearest-neighbour upsampling instead of pooling (Huang & Belongie 2017, figure 2). `TransformNet`,
which is trained for one style, is the network of Johnson et al. 2016 with instance normalisation
(Ulyanov et al. 2016), and with upsampling instead of transposed convolutions, which leave
checkerboard patterns.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import upsample_nearest
from genjax.models.vgg import WIDTHS, Conv3x3, path_to
from genjax.typing import AnyArray, Array, Float


class Decoder(nn.Module):
    """A network from features of VGG-19 to images.

    Attributes:
      layer: the layer whose features it takes, "relu1_1" to "relu5_1".
      widths: of VGG's blocks.
      dtype: of the computation; None for that of the features.
    """

    layer: str = "relu4_1"
    widths: tuple[int, ...] = WIDTHS
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Float[AnyArray, "b h w c"]) -> Float[Array, "b rows columns 3"]:
        """Returns images, RGB, about [0, 1]; sides are multiplied by the stride of the layer."""
        x = features
        for kind, name, block, width in decoder_layers(self.layer, self.widths):
            if kind == "pool":
                x = upsample_nearest(x)
                continue
            x = Conv3x3(width, "reflect", dtype=self.dtype, name=name)(x)
            x = x if width == 3 and block == 0 and name == "conv1_1" else nn.relu(x)
        return x


def decoder_layers(layer: str, widths: tuple[int, ...] = WIDTHS) -> list[tuple[str, str, int, int]]:
    """Lists VGG's layers up to `layer`, backwards: ("conv" or "pool", name, block, outputs)."""
    path, channels = [], 3
    for kind, name, block in path_to([layer]):
        path.append((kind, name, block, channels))
        channels = widths[block]
    return path[::-1]


class TransformNet(nn.Module):
    """A network for one style.

    Attributes:
      channels: of the first convolution; the next two have twice and four times as many.
      num_blocks: residual blocks.
      dtype: of the computation; None for that of the images.
    """

    channels: int = 32
    num_blocks: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns stylized images in [0, 1], float32; height and width must be multiples of 4."""
        c = self.channels
        x = nn.relu(self._norm(self._conv(images, c, 9)))
        x = nn.relu(self._norm(self._conv(x, 2 * c, 3, 2)))
        x = nn.relu(self._norm(self._conv(x, 4 * c, 3, 2)))
        for _ in range(self.num_blocks):
            y = nn.relu(self._norm(self._conv(x, 4 * c, 3)))
            x = x + self._norm(self._conv(y, 4 * c, 3))
        x = nn.relu(self._norm(self._conv(upsample_nearest(x), 2 * c, 3)))
        x = nn.relu(self._norm(self._conv(upsample_nearest(x), c, 3)))
        return nn.sigmoid(self._conv(x, 3, 9).astype(jnp.float32))

    def _conv(self, x, features, size, stride=1):
        edge = (size // 2,) * 2
        x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)), mode="reflect")
        return nn.Conv(features, (size, size), stride, "VALID", dtype=self.dtype)(x)

    def _norm(self, x):
        return nn.InstanceNorm(epsilon=1e-5, dtype=self.dtype)(x)
