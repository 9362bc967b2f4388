"""Inception-v3 of the Fréchet Inception distance: the TensorFlow graph of 2015-12-05.

Szegedy et al. 2016, "Rethinking the Inception architecture", with the weights that Heusel et al.
2017 measured FID with. The code follows its PyTorch ports, mseitzer/pytorch-fid and
toshas/torch-fidelity; all modules have their names. It differs from the Inception-v3 of model zoos:

  - 1008 logits (1000 classes and 8 unused ones), no auxiliary classifier;
  - the 3x3 average pooling of blocks A, C and E1 leaves the padding out of its average;
  - the pooling branch of the last block, E2, takes the maximum instead of the average;
  - images are resized in one of two ways, which a metric has to name: see `RESIZES`.

It is used trained and frozen, so batch normalisation always takes the stored statistics.
`genjax.weights.inception` loads the weights.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from genjax.typing import AnyArray, Array, Float, Num

SIZE = 299  # of the images that the network was trained on
NUM_CLASSES = 1008

# On recent GPUs the default precision multiplies float32 with 10 bits of mantissa.
_PRECISION = lax.Precision.HIGHEST


class InceptionV3(nn.Module):
    """The network, from images to features.

    Attributes:
      resize: a name in `RESIZES`.
    """

    resize: str = "tf1"

    @nn.compact
    def __call__(self, images: Num[AnyArray, "b h w 3"]) -> dict[str, Float[Array, "b _"]]:
        """Computes features of images; the compiler leaves out those that the caller does not use.

        Args:
          images: RGB in 0..255, of any size. The references expect values rounded to uint8;
            rounding is up to the caller.

        Returns:
          Float32 arrays, named as in torch-fidelity: "64" (first max pooling), "192" (second),
          "768" (before the auxiliary classifier) and "2048" (last pooling), each [B, its name] and
          averaged over positions; "logits_unbiased" [B, 1008], without the bias, from which
          torch-fidelity computes the inception score; "logits" [B, 1008].

        Raises:
          ValueError: an unknown name of resizing.
        """
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {', '.join(RESIZES)}, not {self.resize!r}")
        x = RESIZES[self.resize](images.astype(jnp.float32))  # [B, 299, 299, 3]
        taps = {}

        x = ConvBN(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)  # [B, 149, 149, 32]
        x = ConvBN(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)  # [B, 147, 147, 32]
        x = ConvBN(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = _max_pool(x)  # [B, 73, 73, 64]
        taps["64"] = x.mean((1, 2))

        x = ConvBN(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = ConvBN(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)  # [B, 71, 71, 192]
        x = _max_pool(x)  # [B, 35, 35, 192]
        taps["192"] = x.mean((1, 2))

        x = BlockA(32, name="Mixed_5b")(x)  # [B, 35, 35, 256]
        x = BlockA(64, name="Mixed_5c")(x)  # [B, 35, 35, 288]
        x = BlockA(64, name="Mixed_5d")(x)
        x = BlockB(name="Mixed_6a")(x)  # [B, 17, 17, 768]
        x = BlockC(128, name="Mixed_6b")(x)
        x = BlockC(160, name="Mixed_6c")(x)
        x = BlockC(160, name="Mixed_6d")(x)
        x = BlockC(192, name="Mixed_6e")(x)
        taps["768"] = x.mean((1, 2))

        x = BlockD(name="Mixed_7a")(x)  # [B, 8, 8, 1280]
        x = BlockE("avg", name="Mixed_7b")(x)  # [B, 8, 8, 2048]
        x = BlockE("max", name="Mixed_7c")(x)
        taps["2048"] = x.mean((1, 2))
        taps["logits_unbiased"], taps["logits"] = Classifier(name="fc")(taps["2048"])
        return taps


# --- Blocks ---------------------------------------------------------------------------------------


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation by stored statistics, ReLU."""

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns features"]:
        """Returns new feature maps."""
        x = nn.Conv(
            self.features,
            self.kernel_size,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            precision=_PRECISION,
            name="conv",
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Classifier(nn.Module):
    """The last layer."""

    @nn.compact
    def __call__(self, x: Float[Array, "b f"]) -> tuple[Float[Array, "b k"], Float[Array, "b k"]]:
        """Returns the logits before and after the bias is added."""
        shape = (x.shape[-1], NUM_CLASSES)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (NUM_CLASSES,))
        unbiased = jnp.dot(x, kernel, precision=_PRECISION)
        return unbiased, unbiased + bias


class BlockA(nn.Module):
    """Branches of 1x1, 5x5, double 3x3 and pooling."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns channels"]:
        """Returns feature maps of the same sides, with 224 + pool_features channels."""
        a = ConvBN(64, (1, 1), name="branch1x1")(x)
        b = ConvBN(48, (1, 1), name="branch5x5_1")(x)
        b = ConvBN(64, (5, 5), name="branch5x5_2")(b)
        c = ConvBN(64, (1, 1), name="branch3x3dbl_1")(x)
        c = ConvBN(96, (3, 3), name="branch3x3dbl_2")(c)
        c = ConvBN(96, (3, 3), name="branch3x3dbl_3")(c)
        d = ConvBN(self.pool_features, (1, 1), name="branch_pool")(_avg_pool_same(x))
        return jnp.concatenate([a, b, c, d], -1)


class BlockB(nn.Module):
    """Branches of 3x3, double 3x3 and pooling, all of stride 2."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns channels"]:
        """Returns feature maps [B, (H - 1) / 2, (W - 1) / 2, 480 + C]."""
        a = ConvBN(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        b = ConvBN(64, (1, 1), name="branch3x3dbl_1")(x)
        b = ConvBN(96, (3, 3), name="branch3x3dbl_2")(b)
        b = ConvBN(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(b)
        return jnp.concatenate([a, b, _max_pool(x)], -1)


class BlockC(nn.Module):
    """Branches of 1x1, 7x7 as 1x7 and 7x1, double 7x7, and pooling."""

    features_7x7: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns channels"]:
        """Returns feature maps of the same sides, with 768 channels."""
        n = self.features_7x7
        a = ConvBN(192, (1, 1), name="branch1x1")(x)
        b = ConvBN(n, (1, 1), name="branch7x7_1")(x)
        b = ConvBN(n, (1, 7), name="branch7x7_2")(b)
        b = ConvBN(192, (7, 1), name="branch7x7_3")(b)
        c = ConvBN(n, (1, 1), name="branch7x7dbl_1")(x)
        c = ConvBN(n, (7, 1), name="branch7x7dbl_2")(c)
        c = ConvBN(n, (1, 7), name="branch7x7dbl_3")(c)
        c = ConvBN(n, (7, 1), name="branch7x7dbl_4")(c)
        c = ConvBN(192, (1, 7), name="branch7x7dbl_5")(c)
        d = ConvBN(192, (1, 1), name="branch_pool")(_avg_pool_same(x))
        return jnp.concatenate([a, b, c, d], -1)


class BlockD(nn.Module):
    """Branches of 3x3, 7x7 and pooling, all of stride 2."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns channels"]:
        """Returns feature maps [B, (H - 1) / 2, (W - 1) / 2, 512 + C]."""
        a = ConvBN(192, (1, 1), name="branch3x3_1")(x)
        a = ConvBN(320, (3, 3), 2, "VALID", name="branch3x3_2")(a)
        b = ConvBN(192, (1, 1), name="branch7x7x3_1")(x)
        b = ConvBN(192, (1, 7), name="branch7x7x3_2")(b)
        b = ConvBN(192, (7, 1), name="branch7x7x3_3")(b)
        b = ConvBN(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(b)
        return jnp.concatenate([a, b, _max_pool(x)], -1)


class BlockE(nn.Module):
    """Branches of 1x1, 3x3 split into parallel 1x3 and 3x1, the same after a 3x3, and pooling.

    Attributes:
      pool: "avg" (E1) or "max" (E2, the last block of this graph).
    """

    pool: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 2048"]:
        """Returns feature maps of the same sides."""
        a = ConvBN(320, (1, 1), name="branch1x1")(x)
        b = ConvBN(384, (1, 1), name="branch3x3_1")(x)
        b1 = ConvBN(384, (1, 3), name="branch3x3_2a")(b)
        b2 = ConvBN(384, (3, 1), name="branch3x3_2b")(b)
        c = ConvBN(448, (1, 1), name="branch3x3dbl_1")(x)
        c = ConvBN(384, (3, 3), name="branch3x3dbl_2")(c)
        c1 = ConvBN(384, (1, 3), name="branch3x3dbl_3a")(c)
        c2 = ConvBN(384, (3, 1), name="branch3x3dbl_3b")(c)
        pooled = {"avg": _avg_pool_same, "max": _max_pool_same}[self.pool](x)
        d = ConvBN(192, (1, 1), name="branch_pool")(pooled)
        return jnp.concatenate([a, b1, b2, c1, c2, d], -1)


def _max_pool(x):
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


def _max_pool_same(x):
    return nn.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")


def _avg_pool_same(x):
    # TensorFlow averages over the pixels of the image, PyTorch by default over the padding too.
    return nn.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


# --- Resizing -------------------------------------------------------------------------------------


def resize_tf1(images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b 299 299 3"]:
    """Resizes as the TensorFlow graph and torch-fidelity do: 0..255 to [-1, 0.992].

    Bilinear, output i at input i * H / 299 (no half-pixel centres, no antialiasing), which is
    TensorFlow 1's `resize_bilinear(align_corners=False)`; then (x - 128) / 128.
    """
    x = _bilinear(images, _positions(images.shape[1], 0.0), _positions(images.shape[2], 0.0))
    return (x - 128) / 128


def resize_torch(images: Float[AnyArray, "b h w 3"]) -> Float[Array, "b 299 299 3"]:
    """Resizes as pytorch-fid does: 0..255 to [-1, 1].

    Bilinear, output i at input (i + 1/2) * H / 299 - 1/2, at least 0 (no antialiasing), which is
    PyTorch's `interpolate(align_corners=False)`; on pixels scaled to [0, 1], then 2 x - 1.
    """
    x = images / 255
    x = _bilinear(x, _positions(images.shape[1], 0.5), _positions(images.shape[2], 0.5))
    return 2 * x - 1


RESIZES = {"tf1": resize_tf1, "torch": resize_torch}


def _positions(size: int, centre: float) -> np.ndarray:
    """Returns the input position of each output, float32 [299], in the references' arithmetic."""
    scale = np.float32(size / SIZE)
    centre = np.float32(centre)
    return np.maximum((np.arange(SIZE, dtype=np.float32) + centre) * scale - centre, 0)


def _bilinear(x: AnyArray, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Interpolates [B, H, W, C] at rows [R] x columns [S], by gathers.

    Not by matmuls, which would round on accelerators.
    """

    def along(x, positions, axis):
        low = np.floor(positions).astype(np.int32)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        weight = np.expand_dims(positions - low, [a for a in range(x.ndim) if a != axis])
        below, above = jnp.take(x, low, axis), jnp.take(x, high, axis)
        return below + (above - below) * weight

    return along(along(x, columns, 2), rows, 1)
