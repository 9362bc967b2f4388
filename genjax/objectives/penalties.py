"""Regularisers of a discriminator: gradient penalties, LeCam, spectral normalisation.

A `critic` is a function of images [B, H, W, C] to logits [B] that treats each image alone, so that
the gradient of the sum of its logits consists of the gradients of each. Gradients with respect to
images before augmentation are those of D composed with the augmentation (Karras et al. 2020).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from genjax import rng
from genjax.numerics import nonzero
from genjax.typing import Array, Float, Key, ModelState, Params

Critic = Callable[[Array], Array]

_PRECISION = jax.lax.Precision.HIGHEST  # of norms, which all else is divided by
_NO_NORM = 1e-6  # a kernel whose largest singular value is at most this counts as 0


def value_and_squared_gradient_norm(
    critic: Critic, x: Float[Array, "b h w c"]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Computes (D(x), |grad_x D(x)|^2) by one forward and one backward pass.

    R1 (Mescheder et al. 2018, equation 9) is gamma / 2 times its mean over real images, R2 over
    generated ones (equation 10).
    """
    logits, pullback = jax.vjp(critic, x)
    (grads,) = pullback(jnp.ones_like(logits))
    return logits, _sum_of_squares(grads)


def gradient_penalty(
    critic: Critic,
    real: Float[Array, "b h w c"],
    fake: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
) -> Float[Array, " b"]:
    """Computes (|grad D(u x + (1 - u) G(z))| - 1)^2, u uniform (Gulrajani et al. 2017, eq. 3)."""
    u = rng.uniform(keys, (1,) * (real.ndim - 1))
    _, squares = value_and_squared_gradient_norm(critic, u * real + (1 - u) * fake)
    # The root has no derivative at 0, where a new network may well be.
    return (jnp.sqrt(squares + 1e-12) - 1) ** 2


# --- LeCam ----------------------------------------------------------------------------------------


def lecam(r: Float[Array, " b"], f: Float[Array, " b"], anchors: ModelState) -> Float[Array, " b"]:
    """Computes (r - a_f)^2 + (f - a_r)^2, a the averages of past logits (Tseng et al. 2021, eq. 4).

    Args:
      r, f: logits of real and of generated images.
      anchors: {"real": a_r, "fake": a_f}, scalars.
    """
    return (r - anchors["fake"]) ** 2 + (f - anchors["real"]) ** 2


def update_anchors(
    anchors: ModelState,
    mean_real: float | Float[Array, ""],
    mean_fake: float | Float[Array, ""],
    decay: float = 0.99,
) -> ModelState:
    """Returns the anchors after a step with those mean logits."""
    means = {"real": mean_real, "fake": mean_fake}
    return {k: decay * a + (1 - decay) * means[k] for k, a in anchors.items()}


# --- Spectral normalisation -----------------------------------------------------------------------


def spectral_vectors(params: Params, key: Key[Array, ""]) -> ModelState:
    """Draws the start of power iteration: for every kernel a random unit vector [outputs].

    Returns:
      A nested dict like `params`, without its vectors (biases and scales), which stay as they are.
    """
    kernels = {path: p for path, p in flatten_dict(params).items() if p.ndim > 1}
    keys = jax.random.split(key, len(kernels))
    vectors = {
        path: _unit(jax.random.normal(own_key, p.shape[-1:]))
        for own_key, (path, p) in zip(keys, sorted(kernels.items()), strict=True)
    }
    return unflatten_dict(vectors)


def spectral_normalize(params: Params, vectors: ModelState) -> tuple[Params, ModelState]:
    """Divides every kernel, as a matrix [others, outputs], by its largest singular value.

    One step of power iteration from u: v = W u / |W u|, u = W^T v / |W^T v|, sigma = v^T W u; the
    gradient passes through W in sigma, not through u and v (Miyato et al. 2018, algorithm 1).
    A kernel of zeros, as some networks start with, has no direction: it stays as it is, its
    gradient passes unchanged, and u stays too.

    Returns:
      (params with W / sigma, vectors after the step).
    """
    dot = functools.partial(jnp.matmul, precision=_PRECISION)
    flat, us = flatten_dict(params), flatten_dict(vectors)
    out, new = dict(flat), {}
    for path, u in us.items():
        w = flat[path].reshape(-1, u.shape[0])
        fixed = jax.lax.stop_gradient(w)
        v = _unit(dot(fixed, u))
        onward = dot(v, fixed)
        new[path] = jnp.where(jnp.linalg.norm(onward) > _NO_NORM, _unit(onward), u)
        out[path] = flat[path] / nonzero(dot(dot(v, w), new[path]), _NO_NORM)
    return unflatten_dict(out), unflatten_dict(new)


def _unit(x):
    return x / (jnp.linalg.norm(x) + 1e-12)


def _sum_of_squares(x):
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))
