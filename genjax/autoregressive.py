"""Sampling of p(x) = product over pixels of p(x_ij | pixels before): a compiled loop with caches.

A network is a Flax module with `__call__(x, label, train, place)` made of the layers of
`genjax.models.causal`; a head (`genjax.objectives.pixel_heads`) turns its outputs into values. All
randomness is drawn beforehand, as uniforms of each image's own key, and a value is a monotone
function of its uniform: how the outputs are computed does not change which numbers are used where.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from genjax.models.causal import Place

PAD = 8  # zeros around the image; no kernel that looks at the image itself reaches further


def sample(
    network,
    variables,
    head,
    keys,
    shape,
    *,
    label=None,
    temperature=1.0,
    known=None,
    given=None,
    levels=1,
):
    """Draws images, or completes them.

    Args:
      network: the module.
      variables: {"params": ...}.
      head: a `Head`.
      keys: [B], one an image.
      shape: (H, W, C).
      label: int32 [B], or None.
      temperature: of every conditional distribution; 1 is the model's.
      known: int32 [B, H, W, C], values of pixels that are not to be drawn.
      given: bool [H, W] or [B, H, W], where `known` holds.
      levels: resolutions of the network.

    Returns:
      int32 values [B, H, W, C]. Image i depends on keys[i] (its label, its known pixels) alone.
    """
    height, width, channels = shape
    count = keys.shape[0]
    uniforms = head.uniforms(keys, shape)
    if known is None:
        known, given = jnp.zeros((count, *shape), jnp.int32), jnp.zeros((height, width), bool)
    given = jnp.broadcast_to(given, (count, height, width))
    passes = channels if head.channelwise else 1

    def run(stage, due, cache, canvas, row, col):
        place = Place(stage, row, col, (height, width), PAD, due)
        out, new = network.apply(
            {**variables, "cache": cache}, canvas, label, False, place, mutable=["cache"]
        )
        # A place where less is due leaves the rest of the cache alone.
        return out, {**cache, **new.get("cache", {})}

    def put(canvas, values, row, col):
        pixel = head.encode(values)
        return lax.dynamic_update_slice(canvas, pixel, (0, row + PAD, col + PAD, 0))

    def pixel(due, row, col, carry):
        cache, canvas, values = carry
        at = (0, row, col, 0)
        take = lambda x: lax.dynamic_slice(x, at, (count, 1, 1, x.shape[-1]))
        fixed, u = take(known), take(uniforms)
        hold = take(given[..., None])
        value = jnp.where(hold, fixed, 0)
        for c in range(passes):
            if c:
                canvas = put(canvas, value, row, col)
            out, cache = run("pixel", due, cache, canvas, row, col)
            drawn = jnp.where(hold, fixed, head.draw(u, out, temperature))
            mine = jnp.arange(channels) == c if passes > 1 else jnp.ones(channels, bool)
            value = jnp.where(mine, drawn, value)
        values = lax.dynamic_update_slice(values, value, at)
        return cache, put(canvas, value, row, col), values

    def row_stage(due, row, carry):
        cache, canvas, values = carry
        return run("row", due, cache, canvas, row, jnp.int32(0))[1], canvas, values

    def by_level(depth, branch, carry):
        """Runs the branch of as many levels as are due. Not `lax.cond`, which copies the cache."""
        if levels == 1:
            return branch(0)(carry)
        for due in range(levels):
            step = branch(due)
            carry = lax.fori_loop(
                0, (depth == due).astype(jnp.int32), lambda _, c, step=step: step(c), carry
            )
        return carry

    def depth_at(position):
        """How often `position` halves, at most levels - 1."""
        return sum((position % 2**k == 0).astype(jnp.int32) for k in range(1, levels)) + jnp.int32(
            0
        )

    def one_row(row, carry):
        row_depth = depth_at(row)
        carry = by_level(row_depth, lambda d: functools.partial(row_stage, d, row), carry)

        def one_pixel(col, carry):
            depth = jnp.minimum(row_depth, depth_at(col))
            return by_level(depth, lambda d: functools.partial(pixel, d, row, col), carry)

        return lax.fori_loop(0, width, one_pixel, carry)

    values = jnp.zeros((count, *shape), jnp.int32)
    first = head.encode(values[:, :1, :1])
    canvas = jnp.zeros((count, height + PAD, width + 2 * PAD, first.shape[-1]), first.dtype)

    def empty_cache(canvas):
        zero = jnp.int32(0)
        cache = run("row", levels - 1, {}, canvas, zero, zero)[1]
        return run("pixel", levels - 1, cache, canvas, zero, zero)[1]

    shapes = jax.eval_shape(empty_cache, canvas)
    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return lax.fori_loop(0, height, one_row, (cache, canvas, values))[2]
