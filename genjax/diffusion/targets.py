"""What a network predicts, and the exact way from one prediction to any other.

Every target is linear in the image and the noise, p = a x_0 + b eps, and so is what is known,
x_t = alpha x_0 + sigma eps: two equations, two unknowns. A new target is one function that returns
(a, b).

  target     p                                              source
  eps        eps                                            Ho et al. 2020
  x0         x_0
  v          alpha eps - sigma x_0                          Salimans & Ho 2022
  F          (x_0 - c_skip x / alpha) / c_out               Karras et al. 2022, table 1
  velocity   dx_t / dt = alpha' x_0 + sigma' eps            Lipman et al. 2023
"""

import jax.numpy as jnp

from genjax.diffusion.process import expand


def _eps(process, t, sigma_data):
    one = jnp.ones_like(jnp.asarray(t, jnp.float32))
    return jnp.zeros_like(one), one


def _x0(process, t, sigma_data):
    one = jnp.ones_like(jnp.asarray(t, jnp.float32))
    return one, jnp.zeros_like(one)


def _v(process, t, sigma_data):
    alpha, sigma = process.alpha_sigma(t)
    return -sigma, alpha


def _f(process, t, sigma_data):
    # With s = sigma / alpha: c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), solved
    # for x_0 and eps and multiplied through with alpha, which may be 0.
    alpha, sigma = process.alpha_sigma(t)
    norm = jnp.sqrt(sigma**2 + (sigma_data * alpha) ** 2)
    return sigma / (sigma_data * norm), -sigma_data * alpha / norm


def _velocity(process, t, sigma_data):
    return process.derivatives(t)


# Name -> (process, t, sigma_data) -> (a, b), shaped like t.
TARGETS = {"eps": _eps, "x0": _x0, "v": _v, "F": _f, "velocity": _velocity}


def make_target(target, x0, eps, process, t, sigma_data=0.5):
    """p = a x_0 + b eps, [B, ...]; t scalar or [B]."""
    a, b = (expand(c, x0) for c in TARGETS[target](process, t, sigma_data))
    return a * x0 + b * eps


def split(target, prediction, x, process, t, sigma_data=0.5):
    """(x_0, eps) from what a network says of x [B, ...] at t, a scalar or [B].

    Where alpha is 0, nothing is to be learnt of x_0 from eps.
    """
    alpha, sigma = (expand(c, x) for c in process.alpha_sigma(t))
    a, b = (expand(c, x) for c in TARGETS[target](process, t, sigma_data))
    determinant = a * sigma - b * alpha
    x0 = (sigma * prediction - b * x) / determinant
    eps = (a * x - alpha * prediction) / determinant
    return x0, eps


def convert(prediction, source, target, x, process, t, sigma_data=0.5):
    """What a network that predicts `source` would have said, had it been asked for `target`."""
    x0, eps = split(source, prediction, x, process, t, sigma_data)
    return make_target(target, x0, eps, process, t, sigma_data)


def gain(target, process, t, sigma_data=0.5):
    """Error of the prediction over the error of x_0, for one x: |a - b alpha / sigma|, like t."""
    alpha, sigma = process.alpha_sigma(t)
    a, b = TARGETS[target](process, t, sigma_data)
    return jnp.abs(a - b * alpha / sigma)
