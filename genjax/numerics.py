"""Divisors that data or initialisation can make 0."""

import jax.numpy as jnp

from genjax.typing import Array, Float


def nonzero(x: Float[Array, "*shape"], floor: float | int = 0.0) -> Float[Array, "*shape"]:
    """Returns x as a divisor: 1 where x is at most `floor`, with the derivative 0 there.

    What is divided is then left as it is, with a finite value and a finite derivative, where
    x + floor would have a derivative of 1 / floor. For a norm, take the root of `nonzero` of the
    sum of squares: the root itself has no derivative at 0.
    """
    return jnp.where(x > floor, x, 1)
