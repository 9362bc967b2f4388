"""Convolutions, dense layers, batch norm, pooling and upsampling that the networks share.

`Conv`, `ConvTranspose` and `Dense` are Flax's layers in a form that XLA:CPU trains fast: the same
parameters (`kernel` [kh, kw, in, out], `bias` [out]), names, initialisers and results as
`flax.linen.Conv` / `ConvTranspose` on NHWC images, so that a checkpoint serves either. On GPU and
TPU they call `lax` exactly as Flax does. On CPU they take the *columns* form, which is the same sum
in another order: equal up to rounding, with ordinary derivatives of any order and mode (there is no
custom_vjp: grad, jvp, vmap, remat and pmap all work on slices, pads and one matmul).

The mathematics, for one image axis; x [H, C], kernel w [k, C, O], stride s, lower padding a.
`lax.conv_transpose` spreads x to x'[s i] = x[i], zero elsewhere, then convolves:

    y[o] = sum_t x'[o + t - a] w[t]

Only terms with o + t - a = s i remain. Multiply first, c_t[i] = x[i] w[t] (all taps in one matmul,
[B H W, C] x [C, kh kw O]), then add up. Write o = s q + r, phase 0 <= r < s:

    y[s q + r] = sum over t with t = a - r (mod s) of  c_t[q + m],    m = (r + t - a) / s

so each phase is a sum of shifted columns, and the phases are interleaved: nothing is multiplied
by the zeros of x', forward or backward, and both gradients are again one large matmul.

Measured (2 CPU cores, batch 128, 3x3 stride 2, 14x14x64 to 28x28x32, JAX 0.10.2): weight gradient
198 ms by lax, 26 ms by columns; forward 10 and 6 ms, input gradient about 20 ms both ways.
A 1x1 convolution of 64x28x28 pixels, 64 to 256 channels, both gradients: 204 ms by lax, 87 ms by
`jnp.dot`, 26 ms by `pointwise` (JAX 0.12.0; 175, 82 and 24 ms with 0.10.2).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from genjax.devices import device_axis, platform
from genjax.rng import bernoulli_rows
from genjax.typing import AnyArray, Array, Num

Padding = str | Sequence[Sequence[int]]

# --- Dense layers and 1x1 convolutions ------------------------------------------------------------


def prefers_matmul(x: Num[Array, "..."]) -> bool:
    """Tells whether the forms of this module are the faster ones for x.

    Decided by the platform while tracing: `lax.platform_dependent` would compile and
    differentiate both forms. Half precision stays with lax, which accumulates in float32.
    """
    return x.dtype in (jnp.float32, jnp.float64) and platform() == "cpu"


def pointwise(x: Num[Array, "*shape c"], kernel: Num[Array, "c o"]) -> Num[Array, "*shape o"]:
    """Computes x @ kernel, a 1x1 convolution, as a one-dimensional convolution of width 1.

    XLA turns it into a matmul. The reason is the weight gradient x^T dy: the rules of the 1x1
    convolution and of `x @ kernel` order its operands such that XLA copies one of them transposed.
    Without the axis of width 1 JAX 0.12 is 20x slower.
    """
    y = lax.conv_general_dilated(
        x.reshape(-1, 1, x.shape[-1]),
        kernel[None],
        window_strides=(1,),
        padding=((0, 0),),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y.reshape(*x.shape[:-1], -1)


def _dense_dot_general(x, kernel, dimension_numbers, **options):
    """Computes `lax.dot_general` for `nn.Dense`; on CPU, inputs [B, ..., C] go by `pointwise`."""
    if x.ndim > 2 and prefers_matmul(x):
        return pointwise(x, kernel)
    return lax.dot_general(x, kernel, dimension_numbers, **options)


# `flax.linen.Dense` for feature maps and sequences [B, ..., C].
Dense = functools.partial(nn.Dense, dot_general=_dense_dot_general)

# --- Dropout --------------------------------------------------------------------------------------


class Dropout(nn.Module):
    """`flax.linen.Dropout`, with the same mask for an example however a batch is divided.

    Attributes:
      rate: probability of a zero, in [0, 1).
      deterministic: returns the inputs.
    """

    rate: float
    deterministic: bool = False

    @nn.compact
    def __call__(self, x: Num[Array, "b *shape"]) -> Num[Array, "b *shape"]:
        if self.deterministic or self.rate == 0:
            return x
        keep = 1.0 - self.rate
        mask = bernoulli_rows(self.make_rng("dropout"), keep, x.shape)
        return lax.select(mask, x / keep, jnp.zeros_like(x))


# --- Convolutions ---------------------------------------------------------------------------------


def column_conv_transpose(
    x: Num[Array, "b h w c"],
    kernel: Num[Array, "kh kw c o"],
    strides: Sequence[int],
    pads: Sequence[Sequence[int]],
) -> Num[Array, "b ho wo o"]:
    """Computes `lax.conv_transpose(x, kernel, strides, pads)` as one matmul and shifted sums.

    Args:
      strides: (sh, sw).
      pads: ((top, bottom), (left, right)), the padding of the spread-out input.

    Returns:
      An array of height sh (h - 1) + top + bottom - kh + 2 and width
      sw (w - 1) + left + right - kw + 2.
    """
    kh, kw, channels, features = kernel.shape
    batch, height, width, _ = x.shape
    (top, bottom), (left, right) = pads
    sh, sw = strides
    out_h = sh * (height - 1) + top + bottom - kh + 2
    out_w = sw * (width - 1) + left + right - kw + 2
    rows, cols = -(-out_h // sh), -(-out_w // sw)  # per phase, rounded up and cropped below

    # [B, H, W, kh kw O]. Both gradients of the layer above: 47 ms by `@`, so 32.
    columns = pointwise(x, kernel.transpose(2, 0, 1, 3).reshape(channels, -1))
    # split, not slices: its transpose is one concatenation, that of slices is a sum of pads.
    taps = lax.split(columns, [features] * (kh * kw), axis=3)
    zero = jnp.zeros((), x.dtype)

    def phase(r, u):
        """Computes the outputs [B, rows, cols, O] at positions (sh q + r, sw p + u)."""
        total = jnp.zeros((batch, rows, cols, features), x.dtype)
        for i in range((top - r) % sh, kh, sh):
            for j in range((left - u) % sw, kw, sw):
                down, across = (r + i - top) // sh, (u + j - left) // sw
                shift = (
                    (0, 0, 0),
                    (-down, rows + down - height, 0),
                    (-across, cols + across - width, 0),
                    (0, 0, 0),
                )
                total += lax.pad(taps[i * kw + j], zero, shift)
        return total

    y = jnp.stack([jnp.stack([phase(r, u) for u in range(sw)], 3) for r in range(sh)], 2)
    return y.reshape(batch, rows * sh, cols * sw, features)[:, :out_h, :out_w]


def conv_pads(
    size: Sequence[int], kernel_size: Sequence[int], strides: Sequence[int], padding: Padding
) -> Sequence[Sequence[int]]:
    """Returns the (low, high) pairs of `lax.conv_general_dilated` for an input of `size` (H, W)."""
    if isinstance(padding, str):
        return lax.padtype_to_pads(size, kernel_size, strides, padding)
    return padding


def conv_transpose_pads(
    kernel_size: Sequence[int], strides: Sequence[int], padding: Padding
) -> Sequence[Sequence[int]]:
    """Returns the (low, high) pairs of `lax.conv_transpose`, by its own rule for SAME and VALID.

    Raises:
      ValueError: another string.
    """
    if not isinstance(padding, str):
        return padding
    pads = []
    for k, s in zip(kernel_size, strides):
        if padding == "SAME":
            total = k + s - 2
            low = k - 1 if s > k - 1 else -(-total // 2)
        elif padding == "VALID":
            total = k + s - 2 + max(k - s, 0)
            low = k - 1
        else:
            raise ValueError(f"padding must be SAME, VALID or pairs of integers, not {padding!r}")
        pads.append((low, total - low))
    return pads


class _Convolution(nn.Module):
    """The base of the two convolutions: attributes, parameters, dtypes, bias.

    Attributes:
      features: number of output channels.
      kernel_size: (kh, kw).
      strides: an integer or (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      form: None to choose by backend while tracing; "lax" or "columns" to force one of them (for
        example "lax" to export a program from a CPU machine to a GPU).
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()
    form: str | None = None

    @nn.compact
    def __call__(self, x: Num[AnyArray, "b h w c"]) -> Num[Array, "b ho wo o"]:
        """Convolves x and adds the bias; the result has `features` channels."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        strides = (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides)
        y = self.convolve(x, kernel, strides)
        return y if bias is None else y + bias

    def use_columns(self, x: Num[Array, "b h w c"], worthwhile: bool) -> bool:
        """Tells whether to take the columns form; `worthwhile` is the layer's measured rule."""
        if self.form is not None:
            return self.form == "columns"
        return worthwhile and prefers_matmul(x)


class Conv(_Convolution):
    """`flax.linen.Conv`, 2-D, NHWC. Columns for 1x1, and for stride 1 and few output channels."""

    def convolve(
        self, x: Num[Array, "b h w c"], kernel: Num[Array, "kh kw c o"], strides: tuple[int, ...]
    ) -> Num[Array, "b ho wo o"]:
        """Convolves x, without the bias."""
        pads = conv_pads(x.shape[1:3], kernel.shape[:2], strides, self.padding)
        unpadded = not any(map(any, pads))
        if self.use_columns(x, True) and kernel.shape[:2] == (1, 1) and unpadded:
            return pointwise(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
        # With stride 1 a convolution is a transposed one. 32 to 1 channels on 28x28, forward +
        # both gradients: 13 ms by lax, 4 ms by columns. With many output channels the columns
        # are larger than the input, and lax wins; with stride > 1 they compute unused outputs.
        if self.use_columns(x, 4 * self.features <= x.shape[-1]) and strides == (1, 1):
            return column_conv_transpose(x, kernel, strides, pads)
        return lax.conv_general_dilated(
            x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


class ConvTranspose(_Convolution):
    """`flax.linen.ConvTranspose`, 2-D, NHWC, kernel not flipped. Columns always on CPU."""

    def convolve(
        self, x: Num[Array, "b h w c"], kernel: Num[Array, "kh kw c o"], strides: tuple[int, ...]
    ) -> Num[Array, "b ho wo o"]:
        """Convolves the spread-out x, without the bias."""
        pads = conv_transpose_pads(kernel.shape[:2], strides, self.padding)
        # lax's weight gradient convolves the spread-out input: 195 ms where columns take 26.
        if self.use_columns(x, True):
            return column_conv_transpose(x, kernel, strides, pads)
        return lax.conv_transpose(
            x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


# --- Normalisation and resampling -----------------------------------------------------------------


def batch_norm(train: bool, *, dtype: Any, **options: Any) -> nn.BatchNorm:
    """Returns a `nn.BatchNorm` whose batch statistics are those of the global batch.

    Under pmap they are averaged over the devices; under jit the batch is the global one.

    Args:
      train: whether to normalise by the statistics of the batch and to update the running
        averages; otherwise the running averages normalise.
      dtype: of the result; parameters and statistics are float32.
      **options: other fields of `nn.BatchNorm`.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        axis_name=device_axis() if train else None,
        dtype=dtype,
        **options,
    )


def _squares(x, size):
    """Splits [B, H, W, C] into [B, H // size, size, W // size, size, C]; drops the remainder."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(batch, rows, size, columns, size, channels)


def max_pool(x: Num[Array, "b h w c"], size: int = 2) -> Num[Array, "b rows columns c"]:
    """Returns the maximum of each `size` x `size` square; an incomplete last square is dropped.

    As `flax.linen.max_pool(x, (size, size), (size, size))`: of equal maxima the first one has the
    whole gradient. Accelerators take Flax's. On a CPU the gradient of its window reduction scatters
    one element at a time (the tutorial's classifier: 33 ms a step, now 19). That of `jnp.max`
    compares the inputs with the maximum and divides by how many equal it: none, where the compiler
    computes the inputs once more and rounds them otherwise.
    """
    if platform() != "cpu":
        return nn.max_pool(x, (size, size), (size, size))
    return _first_max(_first_max(_squares(x, size), axis=4), axis=2)


def _first_max(x, axis):
    """Returns the maximum along an axis; its gradient belongs to the first of equal ones."""
    best, *others = (lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis]))
    for other in others:
        best = jnp.where((best >= other) | jnp.isnan(best), best, other)
    return best


def average_pool_2x2(x: Num[Array, "b h w c"]) -> Num[Array, "b rows columns c"]:
    """Returns the mean of each 2x2 square; an odd last row or column is dropped."""
    return jnp.mean(_squares(x, 2), axis=(2, 4))


def upsample_nearest(
    x: Num[AnyArray, "b h w c"], factor: int = 2
) -> Num[Array, "b rows columns c"]:
    """Repeats every pixel `factor` times in height and in width."""
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)
