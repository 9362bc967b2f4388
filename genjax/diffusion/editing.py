"""Sampling from images: SDEdit, inversion to noise, and interpolation of noises."""

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.process import Denoiser, Process
from genjax.diffusion.samplers import SAMPLERS, Churn, Sampler, keyed_noise, sample
from genjax.numerics import nonzero
from genjax.typing import Array, Float, Key


def image_to_image(
    sampler: Sampler,
    denoise: Denoiser,
    process: Process,
    times: Float[Array, " n"],
    images: Float[Array, "b *shape"],
    keys: Key[Array, " b"],
) -> Float[Array, "b *shape"]:
    """Adds the noise of times[0] to images and samples from there (SDEdit, Meng et al. 2022).

    Args:
      sampler: the sampler.
      denoise: the denoiser.
      process: the diffusion process.
      times: falling, from below t_max; the lower times[0], the closer the result to the images.
      images: in [-1, 1].
      keys: one per image.
    """
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    x = process.add_noise(images, rng.normal(first, images.shape[1:]), times[0])
    return sample(sampler, denoise, process, times, x, keyed_noise(keys, images.shape[1:]))[0]


def invert(
    denoise: Denoiser,
    process: Process,
    times: Float[Array, " n"],
    images: Float[Array, "b *shape"],
    name: str = "heun",
) -> Float[Array, "b *shape"]:
    """Returns the noise that an ODE sampler turns into the images (Song et al. 2021a, section 4.3).

    Args:
      denoise: the denoiser.
      process: the diffusion process.
      times: falling, as for sampling; the images are taken as x at the last time, over alpha.
      images: in [-1, 1].
      name: a deterministic sampler that accepts rising times: ddim, euler or heun.
    """
    alpha, _ = process.alpha_sigma(times[-1])
    ode = SAMPLERS[name](process, 0.0, "small", Churn())
    return sample(ode, denoise, process, times[::-1], alpha * images, denoise_last=False)[0]


def slerp(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], u: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Interpolates between two noises along the sphere, which preserves the norm of noise.

    Where the directions are the same or opposite, or a noise is 0, it takes the straight line.

    Args:
      a: the result for u = 0.
      b: the result for u = 1.
      u: in [0, 1].
    """
    cosine = jnp.sum(a * b) / nonzero(jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    # Nearly parallel: the formula below would be 0 / 0, and a straight line is as good. Opposite:
    # it would be 0 / 0 too, and no arc is the shortest one.
    straight = (angle < 1e-3) | (angle > jnp.pi - 1e-3)
    sine = jnp.where(straight, 1.0, jnp.sin(angle))
    first = jnp.where(straight, 1 - u, jnp.sin((1 - u) * angle) / sine)
    second = jnp.where(straight, u, jnp.sin(u * angle) / sine)
    return first * a + second * b


def between(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], count: int
) -> Float[Array, "n *shape"]:
    """Returns `count` noises from a to b along the sphere, both of them included."""
    return jax.vmap(slerp, (None, None, 0))(a, b, jnp.linspace(0.0, 1.0, count))
