"""Small convolutional classifiers (LeCun et al. 1998), in any size."""

import flax.linen as nn
import jax.numpy as jnp

from genjax.models.layers import Conv, Dropout, max_pool
from genjax.typing import Array, Float


class Cnn(nn.Module):
    """3x3 convolutions with ReLU and max pooling, one hidden layer, one output layer.

    Attributes:
      num_classes: K.
      features: channels of the convolutions.
      num_pools: how many of them, from the first, are followed by 2x2 max pooling.
      padding: "VALID" (the tutorial's) or "SAME".
      hidden: units of the hidden layer, the features of an image.
      dropout: rate of dropout before the output layer.
      dtype: of the computation; parameters are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (32, 64, 64)
    num_pools: int = 2
    padding: str = "VALID"
    hidden: int = 64
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> dict[str, Float[Array, "b _"]]:
        """Returns {"features": [B, hidden], "logits": [B, K]}, float32."""
        h = x.astype(self.dtype)
        for i, width in enumerate(self.features):
            h = nn.relu(Conv(width, (3, 3), padding=self.padding, dtype=self.dtype)(h))
            if i < self.num_pools:
                h = max_pool(h)
        h = h.reshape(h.shape[0], -1)
        h = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(h))
        features = h.astype(jnp.float32)
        h = Dropout(self.dropout, deterministic=not train)(h)
        logits = nn.Dense(self.num_classes, dtype=jnp.float32)(h)
        return {"features": features, "logits": logits}
