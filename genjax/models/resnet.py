"""Residual networks for small images (He et al. 2016, https://arxiv.org/abs/1512.03385).

The usual form for CIFAR-10: ResNet-18's blocks and widths after a 3x3 stem without pooling, so that
a 32x32 image ends as 4x4.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, batch_norm
from genjax.typing import Array, Float

# He et al. 2015, by the outputs: what their code and PyTorch's ResNet use.
_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes.

    Attributes:
      features: channels of the output.
      stride: of the first convolution.
      norm: () -> a batch norm.
      dtype: of the computation; parameters are float32.
    """

    features: int
    stride: int
    norm: functools.partial
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns features"]:
        """Returns feature maps whose sides are those of x divided by `stride`."""
        conv = functools.partial(
            Conv, self.features, use_bias=False, kernel_init=_init, dtype=self.dtype
        )
        around = ((1, 1), (1, 1))  # SAME would pad a strided convolution on one side only
        h = nn.relu(self.norm()(conv((3, 3), strides=self.stride, padding=around)(x)))
        h = self.norm()(conv((3, 3), padding=around)(h))
        if x.shape != h.shape:
            x = self.norm()(conv((1, 1), strides=self.stride)(x))
        return nn.relu(h + x)


class ResNet(nn.Module):
    """Stages of basic blocks, global average, one output layer; blocks (2, 2, 2, 2): ResNet-18.

    Attributes:
      num_classes: K.
      blocks: number of blocks of each stage; every stage but the first halves the sides.
      width: channels of the first stage; each stage doubles them.
      dtype: of the computation; parameters and statistics are float32.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> dict[str, Float[Array, "b _"]]:
        """Returns {"features": [B, width 2^(stages - 1)], "logits": [B, K]}, float32."""
        norm = functools.partial(batch_norm, train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        h = x.astype(self.dtype)
        h = Conv(self.width, (3, 3), use_bias=False, kernel_init=_init, dtype=self.dtype)(h)
        h = nn.relu(norm()(h))
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                h = BasicBlock(self.width * 2**stage, stride, norm, self.dtype)(h)
        features = jnp.mean(h.astype(jnp.float32), axis=(1, 2))
        return {"features": features, "logits": nn.Dense(self.num_classes)(features)}
