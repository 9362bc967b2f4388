"""What generators and discriminators share.

A generator is called with latents z [B, D] and labels y, one-hot [B, K], or None; it returns images
[B, H, W, C] in [-1, 1]. A discriminator is called with images and labels and returns logits [B],
each of its image alone: none of them has batch statistics, so that gradient penalties mean what
they say.
"""

import flax.linen as nn
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch norm; with labels, scale and bias are linear in y (de Vries et al. 2017).

    Attributes:
      momentum: of the running averages; 0 leaves those of the last batch.
      epsilon: added to the variance.
      axis_name: of the devices under pmap, to share batch statistics; None under jit.
      dtype: of the computation; parameters and statistics are float32.
    """

    momentum: float
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, h, y, train):
        """h [B, ..., C], y [B, K] or None -> [B, ..., C]."""
        h = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=self.axis_name if train else None,
            use_scale=y is None,
            use_bias=y is None,
            dtype=self.dtype,
            name="norm",
        )(h)
        if y is None:
            return h
        place = (len(h),) + (1,) * (h.ndim - 2) + (-1,)
        linear = lambda name: nn.Dense(
            h.shape[-1],
            use_bias=False,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name=name,
        )(y.astype(self.dtype)).reshape(place)
        return h * (1 + linear("scale")) + linear("bias")


class ProjectionHead(nn.Module):
    """w^T h + b, and with labels + y^T V h (Miyato & Koyama 2018, equation 7); float32."""

    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, h, y):
        """h [B, F], y [B, K] or None -> logits [B]."""
        h = h.astype(jnp.float32)
        logits = nn.Dense(1, kernel_init=self.kernel_init, name="logit")(h)[:, 0]
        if y is None:
            return logits
        embedded = nn.Dense(h.shape[-1], use_bias=False, name="embedding")(y)
        return logits + jnp.sum(embedded * h, axis=-1)


def base_size(image_shape, halvings):
    """The sides of an image halved so often."""
    height, width, _ = image_shape
    factor = 2**halvings
    if height % factor or width % factor:
        raise ValueError(f"height and width must be multiples of {factor}")
    return height // factor, width // factor
