"""Layers and contracts that generators and discriminators share.

A generator is called with latents z [B, D] and labels y, one-hot [B, K], or None; it returns images
[B, H, W, C] in [-1, 1]. A discriminator is called with images and labels and returns logits [B].
Each logit depends on its own image alone: no discriminator has batch statistics, so that gradient
penalties are what their papers define.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import batch_norm
from genjax.typing import Array, Float


class BatchNorm(nn.Module):
    """Batch norm; with labels, scale and bias are linear in y (de Vries et al. 2017).

    Attributes:
      momentum: of the running averages; 0 keeps the statistics of the last batch alone.
      epsilon: added to the variance.
      dtype: of the computation; parameters and statistics are float32.
    """

    momentum: float
    epsilon: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, h: Float[Array, "b *sides c"], y: Float[Array, "b k"] | None, train: bool
    ) -> Float[Array, "b *sides c"]:
        """Normalises h; `train` as in `genjax.models.layers.batch_norm`."""
        norm = batch_norm(
            train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            use_scale=y is None,
            use_bias=y is None,
            dtype=self.dtype,
            name="norm",
        )
        h = norm(h)
        if y is None:
            return h
        shape = (len(h),) + (1,) * (h.ndim - 2) + (-1,)
        linear = lambda name: nn.Dense(
            h.shape[-1],
            use_bias=False,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name=name,
        )(y.astype(self.dtype)).reshape(shape)
        return h * (1 + linear("scale")) + linear("bias")


class ProjectionHead(nn.Module):
    """w^T h + b, and with labels + y^T V h (Miyato & Koyama 2018, equation 7); float32.

    Attributes:
      kernel_init: of w.
    """

    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, h: Float[Array, "b f"], y: Float[Array, "b k"] | None) -> Float[Array, " b"]:
        """Returns the logits of features h and labels y."""
        h = h.astype(jnp.float32)
        logits = nn.Dense(1, kernel_init=self.kernel_init, name="logit")(h)[:, 0]
        if y is None:
            return logits
        embedded = nn.Dense(h.shape[-1], use_bias=False, name="embedding")(y)
        return logits + jnp.sum(embedded * h, axis=-1)


def base_size(image_shape: Sequence[int], halvings: int) -> tuple[int, int]:
    """Returns the sides of an image (H, W, C) after so many halvings.

    Raises:
      ValueError: a side that cannot be halved that often.
    """
    height, width, _ = image_shape
    factor = 2**halvings
    if height % factor or width % factor:
        raise ValueError(f"height and width must be multiples of {factor}")
    return height // factor, width // factor
