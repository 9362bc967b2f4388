"""Images from images: SDEdit, the way back to noise, and the images between two."""

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.samplers import SAMPLERS, Churn, keyed_noise, sample


def image_to_image(sampler, denoise, process, times, images, keys):
    """SDEdit (Meng et al. 2022): noise to times[0], then sample on from there.

    Args:
      sampler, denoise, process: as of `sample`.
      times: [N], falling, from somewhere below t_max: the lower, the closer to the images.
      images: [B, ...] in [-1, 1].
      keys: [B].
    """
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    x = process.add_noise(images, rng.normal(first, images.shape[1:]), times[0])
    return sample(sampler, denoise, process, times, x, keyed_noise(keys, images.shape[1:]))[0]


def invert(denoise, process, times, images, name="heun"):
    """The noise [B, ...] at the largest time that an ODE sampler turns into the images (Song et al.
    2021a, section 4.3). `times` are as for sampling, falling; the image stands for x at the last.
    """
    alpha, _ = process.alpha_sigma(times[-1])
    ode = SAMPLERS[name](process, 0.0, "small", Churn())
    return sample(ode, denoise, process, times[::-1], alpha * images, denoise_last=False)[0]


def slerp(a, b, u):
    """Between two noises [...] along the sphere, u in [0, 1]; keeps the norm that noise has."""
    cosine = jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    # Nearly parallel: the sphere is flat there.
    flat = angle < 1e-3
    sine = jnp.where(flat, 1.0, jnp.sin(angle))
    first = jnp.where(flat, 1 - u, jnp.sin((1 - u) * angle) / sine)
    second = jnp.where(flat, u, jnp.sin(u * angle) / sine)
    return first * a + second * b


def between(a, b, count):
    """`count` noises [count, ...] from a to b, both of them included."""
    return jax.vmap(slerp, (None, None, 0))(a, b, jnp.linspace(0.0, 1.0, count))
