"""Sampling of p(x) = product over pixels of p(x_ij | pixels before): a compiled loop with caches.

A network is a Flax module with `__call__(x, label, train, position)` made of the layers of
`genjax.models.causal`; a head (`genjax.objectives.pixel_heads`) turns its outputs into values. All
random numbers are drawn beforehand, as uniforms of each image's own key, and a value is a monotone
function of its uniform: which number is used where does not depend on how outputs are computed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import Position
from genjax.objectives.pixel_heads import Head
from genjax.typing import AnyArray, Array, Bool, Float, Int, Key, Shape

PAD = 8  # zeros around the image; no kernel that is applied to the image reaches further

# What the loop carries: the cache, the encoded image with zeros around it, and the values.
Carry = tuple[dict, Array, Array]


def sample(
    network: nn.Module,
    variables: dict[str, Any],
    head: Head,
    keys: Key[Array, " b"],
    shape: Shape,
    *,
    label: Int[AnyArray, " b"] | None = None,
    temperature: float | int | Float[AnyArray, ""] = 1.0,
    known: Int[AnyArray, "b h w c"] | None = None,
    given: Bool[AnyArray, "h w"] | Bool[AnyArray, "b h w"] | None = None,
    levels: int = 1,
) -> Int[Array, "b h w c"]:
    """Draws images, or completes them.

    Args:
      network: the module.
      variables: {"params": ...}.
      head: distribution of a pixel.
      keys: one for each image.
      shape: (H, W, C).
      label: classes, for a conditional network.
      temperature: of every conditional distribution; 1 is the model's.
      known: values of pixels that are not to be drawn.
      given: which pixels are known.
      levels: resolutions of the network.

    Returns:
      int32 values, -1 where the network's outputs are not finite: some value could be drawn of
      them, too. Image i depends on keys[i], its label and its known pixels alone.
    """
    height, width, _ = shape
    count = keys.shape[0]
    uniforms = head.uniforms(keys, shape)
    if known is None:
        known, given = jnp.zeros((count, *shape), jnp.int32), jnp.zeros((height, width), bool)
    given = jnp.broadcast_to(given, (count, height, width))[..., None]
    sampler = _Sampler(network, variables, head, shape, label, temperature, known, given, uniforms)
    return sampler.run(levels)


@dataclasses.dataclass(frozen=True)
class _Sampler:
    """The steps of `sample`, whose arguments are the attributes.

    `given` is [B, H, W, 1] and `uniforms` [B, H, W, any].
    """

    network: nn.Module
    variables: dict
    head: Head
    shape: Shape
    label: AnyArray | None
    temperature: Any
    known: AnyArray
    given: Array
    uniforms: Array

    def run(self, levels: int) -> Array:
        """Draws all pixels in raster order."""
        height, width, _ = self.shape
        values = jnp.zeros(self.known.shape, jnp.int32)
        encoded = self.head.encode(values[:, :1, :1])
        canvas = jnp.zeros(
            (len(values), height + PAD, width + 2 * PAD, encoded.shape[-1]), encoded.dtype
        )

        def row(row, carry):
            row_depth = _depth(row, levels)
            carry = _by_depth(levels, row_depth, lambda d: self._row(d, row), carry)

            def pixel(col, carry):
                depth = jnp.minimum(row_depth, _depth(col, levels))
                return _by_depth(levels, depth, lambda d: self._pixel(d, row, col), carry)

            return lax.fori_loop(0, width, pixel, carry)

        cache = self._empty_cache(canvas, levels)
        return lax.fori_loop(0, height, row, (cache, canvas, values))[2]

    def _empty_cache(self, canvas: Array, levels: int) -> dict:
        """Returns zeros of the shapes that a row and a pixel store."""

        def stored(canvas):
            zero = jnp.int32(0)
            cache = self._apply("row", levels - 1, {}, canvas, zero, zero)[1]
            return self._apply("pixel", levels - 1, cache, canvas, zero, zero)[1]

        shapes = jax.eval_shape(stored, canvas)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def _row(self, depth: int, row: Array) -> Callable[[Carry], Carry]:
        """Returns the row stage of a row for which `depth` coarser levels are computed."""

        def step(carry):
            cache, canvas, values = carry
            return self._apply("row", depth, cache, canvas, row, jnp.int32(0))[1], canvas, values

        return step

    def _pixel(self, depth: int, row: Array, col: Array) -> Callable[[Carry], Carry]:
        """Returns the pixel stage of a pixel for which `depth` coarser levels are computed."""
        channels = self.shape[2]
        passes = channels if self.head.channelwise else 1
        start = (0, row, col, 0)

        def step(carry):
            cache, canvas, values = carry
            take = lambda x: lax.dynamic_slice(x, start, (len(x), 1, 1, x.shape[-1]))
            known, uniforms, given = map(take, (self.known, self.uniforms, self.given))
            value = jnp.where(given, known, 0)
            for c in range(passes):
                if c:
                    canvas = self._put(canvas, value, row, col)
                out, cache = self._apply("pixel", depth, cache, canvas, row, col)
                drawn = self.head.draw(uniforms, out, self.temperature)
                drawn = jnp.where(jnp.isfinite(out).all(-1, keepdims=True), drawn, -1)
                drawn = jnp.where(given, known, drawn)
                current = jnp.arange(channels) == c if passes > 1 else jnp.ones(channels, bool)
                value = jnp.where(current, drawn, value)
            values = lax.dynamic_update_slice(values, value, start)
            return cache, self._put(canvas, value, row, col), values

        return step

    def _apply(self, stage, depth, cache, canvas, row, col):
        """Applies the network at a position; returns its outputs and the new cache."""
        position = Position(stage, row, col, self.shape[:2], PAD, depth)
        variables = {**self.variables, "cache": cache}
        out, new = self.network.apply(
            variables, canvas, self.label, False, position, mutable=["cache"]
        )
        # Levels that are not computed here keep their part of the cache.
        return out, {**cache, **new.get("cache", {})}

    def _put(self, canvas, value, row, col):
        """Writes the encoded value of a pixel into the canvas."""
        pixel = self.head.encode(value)
        return lax.dynamic_update_slice(canvas, pixel, (0, row + PAD, col + PAD, 0))


def _depth(position: Array, levels: int) -> Array:
    """Counts how often a row or column number can be halved, at most levels - 1 times."""
    return sum((position % 2**k == 0).astype(jnp.int32) for k in range(1, levels)) + jnp.int32(0)


def _by_depth(levels: int, depth: Array, branch: Callable, carry: Carry) -> Carry:
    """Applies the step `branch(depth)`; not by `lax.cond`, which copies the cache."""
    if levels == 1:
        return branch(0)(carry)
    for d in range(levels):
        step = branch(d)
        carry = lax.fori_loop(
            0, (depth == d).astype(jnp.int32), lambda _, c, step=step: step(c), carry
        )
    return carry
