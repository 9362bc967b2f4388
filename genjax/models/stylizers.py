"""Networks that draw pictures in one pass: decoders of VGG's features, and one that knows a style.

`Decoder` mirrors VGG from a layer reluB_1 back to pixels: convolutions of 3x3, each after a
reflection, nearest-neighbour enlargements in place of the poolings (Huang & Belongie 2017, figure
2). `TransformNet` is the network of Johnson et al. 2016 with instance normalisation (Ulyanov et al.
2016) and enlargements in place of transposed convolutions, which leave checkerboards.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.vgg import WIDTHS, Conv3x3, path_to


class Decoder(nn.Module):
    """From features to pictures.

    Attributes:
      layer: the layer of VGG-19 whose features it takes, "relu1_1" to "relu5_1".
      widths: of VGG's blocks.
    """

    layer: str = "relu4_1"
    widths: tuple[int, ...] = WIDTHS
    dtype: Any = None

    @nn.compact
    def __call__(self, features):
        """[B, H, W, C] -> [B, s H, s W, 3], RGB, about [0, 1]; s as in `genjax.models.vgg`."""
        x = features
        for kind, name, block, width in decoder_layers(self.layer, self.widths):
            if kind == "pool":
                x = enlarge(x)
                continue
            x = Conv3x3(width, "reflect", dtype=self.dtype, name=name)(x)
            x = x if width == 3 and block == 0 and name == "conv1_1" else nn.relu(x)
        return x


def decoder_layers(layer, widths=WIDTHS):
    """[("conv" or "pool", name, block, channels out)]: the way of VGG to `layer`, backwards."""
    way, channels = [], 3
    for kind, name, block in path_to([layer]):
        way.append((kind, name, block, channels))
        channels = widths[block]
    return way[::-1]


def enlarge(x):
    """Twice as high and as wide, each value four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class TransformNet(nn.Module):
    """A network for one style.

    Attributes:
      channels: of the first convolution; twice and four times as many further in.
      num_blocks: residual blocks.
    """

    channels: int = 32
    num_blocks: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, images):
        """[B, H, W, 3] in [0, 1] -> the same, in the style; H and W multiples of 4."""
        c = self.channels
        x = nn.relu(self.norm(self.conv(images, c, 9)))
        x = nn.relu(self.norm(self.conv(x, 2 * c, 3, 2)))
        x = nn.relu(self.norm(self.conv(x, 4 * c, 3, 2)))
        for _ in range(self.num_blocks):
            y = nn.relu(self.norm(self.conv(x, 4 * c, 3)))
            x = x + self.norm(self.conv(y, 4 * c, 3))
        x = nn.relu(self.norm(self.conv(enlarge(x), 2 * c, 3)))
        x = nn.relu(self.norm(self.conv(enlarge(x), c, 3)))
        return nn.sigmoid(self.conv(x, 3, 9).astype(jnp.float32))

    def conv(self, x, features, size, stride=1):
        edge = (size // 2,) * 2
        x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)), mode="reflect")
        return nn.Conv(features, (size, size), stride, "VALID", dtype=self.dtype)(x)

    def norm(self, x):
        """Instance normalisation: each channel of each picture by itself."""
        return nn.GroupNorm(num_groups=None, group_size=1, epsilon=1e-5, dtype=self.dtype)(x)
