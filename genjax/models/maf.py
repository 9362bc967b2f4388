"""Masked and inverse autoregressive flows of all pixels in raster order, by dense layers.

MAF (Papamakarios et al. 2017) and IAF (Kingma et al. 2016) have blocks of one MADE (Germain et al.
2015), which gives a and b of each number from those before it:

  maf   z_t = (x_t - b(x_<t)) exp(-a(x_<t)): x to z in one pass, z to x number by number
  iaf   x_t = z_t exp(a(z_<t)) + b(z_<t):    z to x in one pass, x to z number by number
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from genjax.models.flows import ActNorm, class_weights, per_example
from genjax.models.layers import Dense
from genjax.typing import Array, Float, Int, Shape

KINDS = ("maf", "iaf")

_zeros = nn.initializers.zeros_init()


class MaskedDense(nn.Module):
    """A dense layer in which output i sees the inputs j with sees(outputs[i], inputs[j]).

    Attributes:
      inputs, outputs: numbers of the units, such as positions in an order.
      strict: whether an input's number must be smaller than the output's, or may be equal.
      zero: whether the kernel starts at 0.
      dtype: of the computation.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    strict: bool
    zero: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b inputs"]) -> Float[Array, "b outputs"]:
        """Returns the outputs."""
        later, earlier = np.asarray(self.outputs)[None], np.asarray(self.inputs)[:, None]
        mask = (earlier < later if self.strict else earlier <= later).astype(np.float32)
        init = _zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, mask.shape) * mask
        bias = self.param("bias", _zeros, mask.shape[1:])
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return x @ kernel + bias


class Made(nn.Module):
    """MADE: outputs for number t depend on the numbers before t.

    Attributes:
      hidden: widths of the hidden layers.
      dtype: of those; the outputs are float32.
    """

    hidden: tuple[int, ...]
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], classes: Float[Array, "b k"] | None = None
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns a and b."""
        dims = x.shape[1]
        numbers, h = tuple(range(1, dims + 1)), x.astype(self.dtype)
        before = numbers
        for i, width in enumerate(self.hidden):
            units = tuple(1 + j % max(dims - 1, 1) for j in range(width))
            h = MaskedDense(before, units, False, dtype=self.dtype, name=f"hidden{i}")(h)
            if classes is not None and i == 0:
                dense = Dense(width, use_bias=False, dtype=self.dtype, name="classes")
                h += dense(classes.astype(self.dtype))
            h, before = nn.relu(h), units
        out = MaskedDense(before, numbers + numbers, True, True, "float32", name="out")
        return tuple(jnp.split(out(h.astype(jnp.float32)), 2, axis=-1))


class AutoregressiveFlow(nn.Module):
    """MAF or IAF. See `genjax.models.flows` for what it computes; it has one latent.

    Attributes:
      kind: a name in `KINDS`.
      hidden: widths of the hidden layers of a block.
      blocks: how many, in alternating order; each is followed by `ActNorm` of every number.
      num_classes: 0 for an unconditional network.
      dtype: of the hidden layers.
    """

    kind: str = "maf"
    hidden: tuple[int, ...] = (512, 512)
    blocks: int = 5
    num_classes: int = 0
    dtype: str = "float32"

    def latent_shapes(self, image_shape: Shape) -> tuple[Shape, ...]:
        """Returns the shape of the latent of an image (H, W, C)."""
        return (tuple(image_shape),)

    def _block(self, number, x, classes, reverse):
        """Applies a block to numbers [B, D], or inverts it; returns the log-determinant, too."""
        made = Made(self.hidden, self.dtype, name=f"block{number}")
        norm = ActNorm(name=f"norm{number}")
        change = 0.0
        if reverse:
            x, change = norm(x, True)
        known = x if reverse == (self.kind == "iaf") else _one_by_one(made, x, classes, reverse)
        a, b = made(known, classes)
        if reverse:
            return x * jnp.exp(a) + b, change + per_example(a)
        x, change = norm((x - b) * jnp.exp(-a))
        return x, change - per_example(a)

    @nn.compact
    def run(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None, reverse: bool
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Maps images to (latents, log-determinant), or back."""
        shape, log_det = x.shape, jnp.zeros(len(x))
        classes = class_weights(label, self.num_classes) if self.num_classes else None
        x = x.reshape(len(x), -1)
        for number in reversed(range(self.blocks)) if reverse else range(self.blocks):
            turn = lambda y, number=number: y[:, ::-1] if number % 2 else y
            x, change = self._block(number, turn(x), classes, reverse)
            x, log_det = turn(x), log_det + change
        return x.reshape(shape), log_det

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[tuple[Float[Array, "b ..."], ...], Float[Array, " b"]]:
        """Returns (the latent,) and the log-determinant."""
        z, log_det = self.run(x, label, False)
        return (z,), log_det

    def inverse(
        self,
        latents: tuple[Float[Array, "b ..."], ...],
        label: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Returns the images of latents."""
        return self.run(latents[0], label, True)[0]


def _one_by_one(made, y, classes, to_x):
    """Returns what a and b are functions of, of the other side y [B, D], in a loop over D."""

    def step(made, known, t):
        a, b = made(known, classes)
        new = y * jnp.exp(a) + b if to_x else (y - b) * jnp.exp(-a)
        return jnp.where(jnp.arange(y.shape[1]) == t, new, known), None

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    if made.is_initializing():
        made(y, classes)
    return scan(made, jnp.zeros_like(y), jnp.arange(y.shape[1]))[0]
