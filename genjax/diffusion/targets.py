"""What a network predicts, and the exact conversion from one prediction to any other.

Every target is linear in the image and the noise, p = a x_0 + b eps, and so is the network's input,
x_t = alpha x_0 + sigma eps: two equations with two unknowns. A new target is one function that
returns (a, b).

  target     p                                              source
  eps        eps                                            Ho et al. 2020
  x0         x_0
  v          alpha eps - sigma x_0                          Salimans & Ho 2022
  F          (x_0 - c_skip x / alpha) / c_out               Karras et al. 2022, table 1
  velocity   dx_t / dt = alpha' x_0 + sigma' eps            Lipman et al. 2023
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from genjax.diffusion.process import Process, Time, expand
from genjax.typing import Array, Float

Coefficients: TypeAlias = tuple[Float[Array, "..."], Float[Array, "..."]]


def _eps(process: Process, t: Time, sigma_data: float | int) -> Coefficients:
    one = jnp.ones_like(jnp.asarray(t, jnp.float32))
    return jnp.zeros_like(one), one


def _x0(process: Process, t: Time, sigma_data: float | int) -> Coefficients:
    one = jnp.ones_like(jnp.asarray(t, jnp.float32))
    return one, jnp.zeros_like(one)


def _v(process: Process, t: Time, sigma_data: float | int) -> Coefficients:
    alpha, sigma = process.alpha_sigma(t)
    return -sigma, alpha


def _f(process: Process, t: Time, sigma_data: float | int) -> Coefficients:
    # With s = sigma / alpha: c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), solved
    # for x_0 and eps and multiplied by alpha, which may be 0.
    alpha, sigma = process.alpha_sigma(t)
    norm = jnp.sqrt(sigma**2 + (sigma_data * alpha) ** 2)
    return sigma / (sigma_data * norm), -sigma_data * alpha / norm


def _velocity(process: Process, t: Time, sigma_data: float | int) -> Coefficients:
    return process.derivatives(t)


# Name -> (process, t, sigma_data) -> (a, b), shaped like t.
TARGETS: dict[str, Callable[[Process, Time, float | int], Coefficients]] = {
    "eps": _eps,
    "x0": _x0,
    "v": _v,
    "F": _f,
    "velocity": _velocity,
}


def make_target(
    target: str,
    x0: Float[Array, "b *shape"],
    eps: Float[Array, "b *shape"],
    process: Process,
    t: Time,
    sigma_data: float | int = 0.5,
) -> Float[Array, "b *shape"]:
    """Returns the value p = a x_0 + b eps that a network with this target is trained to predict."""
    a, b = (expand(c, x0) for c in TARGETS[target](process, t, sigma_data))
    return a * x0 + b * eps


def split(
    target: str,
    prediction: Float[Array, "b *shape"],
    x: Float[Array, "b *shape"],
    process: Process,
    t: Time,
    sigma_data: float | int = 0.5,
) -> tuple[Float[Array, "b *shape"], Float[Array, "b *shape"]]:
    """Returns (x_0, eps) according to a network's prediction for x.

    Where alpha is 0, a prediction of eps says nothing about x_0.
    """
    alpha, sigma = (expand(c, x) for c in process.alpha_sigma(t))
    a, b = (expand(c, x) for c in TARGETS[target](process, t, sigma_data))
    determinant = a * sigma - b * alpha
    x0 = (sigma * prediction - b * x) / determinant
    eps = (a * x - alpha * prediction) / determinant
    return x0, eps


def convert(
    prediction: Float[Array, "b *shape"],
    source: str,
    target: str,
    x: Float[Array, "b *shape"],
    process: Process,
    t: Time,
    sigma_data: float | int = 0.5,
) -> Float[Array, "b *shape"]:
    """Converts a prediction for x of one target, `source`, into one of another, `target`."""
    x0, eps = split(source, prediction, x, process, t, sigma_data)
    return make_target(target, x0, eps, process, t, sigma_data)


def gain(
    target: str, process: Process, t: Time, sigma_data: float | int = 0.5
) -> Float[Array, "..."]:
    """Returns the error of the prediction over that of x_0, for one x: |a - b alpha / sigma|."""
    alpha, sigma = process.alpha_sigma(t)
    a, b = TARGETS[target](process, t, sigma_data)
    return jnp.abs(a - b * alpha / sigma)
