"""Images in one step: mean flows and consistency training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.process import Denoiser, Process, expand
from genjax.models.attention import plain_attention
from genjax.typing import Array, Float, Key, Num

# --- Mean flows -----------------------------------------------------------------------------------


def meanflow_loss(
    u: Callable[..., Float[Array, "b *shape"]],
    x0: Float[Array, "b *shape"],
    eps: Float[Array, "b *shape"],
    r: Float[Array, " b"],
    t: Float[Array, " b"],
    power: float | int = 1.0,
    c: float = 1e-3,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Computes the loss of mean flows (Geng et al. 2025, algorithm 1).

    On the straight path x_t = (1 - t) x_0 + t eps, u(x, r, t) is the average of the velocity v from
    r to t, so that x_r = x_t - (t - r) u. As (t - r) u = int_r^t v, u = v - (t - r) du/dt along the
    path; the loss is the squared difference of the two sides.

    Args:
      u: (x [B, ...], r [B], t [B]) -> [B, ...]; differentiated forwards.
      x0: the images.
      eps: standard normal noise.
      r: the earlier times, 0 <= r <= t.
      t: the later times, at most 1.
      power: of the adaptive weight: with squared error e, an example has loss e / (e + c)^power,
        whose denominator is not differentiated.
      c: keeps that denominator positive.

    Returns:
      (the loss, the mean squared error of u), per example.
    """
    v = eps - x0
    x = x0 + expand(t, x0) * v
    with plain_attention():
        average, derivative = jax.jvp(u, (x, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
    target = jax.lax.stop_gradient(v - expand(t - r, x) * derivative)
    axes = tuple(range(1, x.ndim))
    error = jnp.sum((average - target) ** 2, axis=axes)
    weight = jax.lax.stop_gradient(error + c) ** -power
    return weight * error, jnp.mean((average - target) ** 2, axis=axes)


def meanflow_times(
    keys: Key[Array, " b"],
    mean: float | int = -0.4,
    std: float | int = 1.0,
    flow_ratio: float | int = 0.75,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Draws (r, t): two logit-normal times in order.

    A share `flow_ratio` of the examples has r = t, where the loss is that of flow matching.
    """
    times = jax.nn.sigmoid(mean + std * rng.normal(keys, (2,)))
    r, t = jnp.min(times, axis=1), jnp.max(times, axis=1)
    same = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys) < flow_ratio
    return jnp.where(same, t, r), t


def meanflow_sample(
    u: Callable[..., Float[Array, "b *shape"]], x: Float[Array, "b *shape"], num_steps: int
) -> Float[Array, "b *shape"]:
    """Maps noise x, at t = 1, to images in `num_steps` equal steps."""
    times = jnp.linspace(1.0, 0.0, num_steps + 1)

    def body(x, ends):
        t, r = (jnp.broadcast_to(end, x.shape[:1]) for end in ends)
        return x - expand(t - r, x) * u(x, r, t), None

    return jax.lax.scan(body, x, (times[:-1], times[1:]))[0]


# --- Consistency models ---------------------------------------------------------------------------


def consistency_earlier(
    s: Float[Array, " b"],
    stage: Num[Array, ""] | float | int,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
) -> Float[Array, " b"]:
    """Returns the smaller noise level r that s is paired with (Geng et al. 2024, ECT, eq. 10-11).

      r / s = 1 - n(s) / q^stage,   n(s) = 1 + k sigmoid(-b s), at least 0

    Noise levels are sigma / alpha. Stage 0 is diffusion, r = 0; in later stages r approaches s, and
    stays below it by at least what the numbers resolve.
    """
    share = (1 + k * jax.nn.sigmoid(-b * s)) / q**stage
    share = jnp.maximum(share, jnp.finfo(s.dtype).eps)
    return jnp.maximum(s * (1 - share), 0.0)


def consistency_loss(
    denoise: Denoiser,
    x0: Float[Array, "b *shape"],
    eps: Float[Array, "b *shape"],
    s: Float[Array, " b"],
    r: Float[Array, " b"],
    c: float | int = 0.0,
) -> Float[Array, " b"]:
    """Computes the loss of consistency training (Song et al. 2023; Geng et al. 2024, ECT).

    It is the distance of f(x_s, s) from f(x_r, r), both with the same noise, over s - r.

    Args:
      denoise: f, with alpha = 1 and t = sigma = s; the identity at s = 0, as a network with target
        F is.
      x0: the images.
      eps: standard normal noise.
      s: the larger noise levels.
      r: the smaller ones, 0 <= r < s.
      c: of the pseudo-Huber distance sqrt(|d|^2 + c^2) - c; 0 for the Euclidean norm.
    """
    at_s = denoise(x0 + expand(s, x0) * eps, s)
    # At r = 0, where f is the identity, the network's input would be log(0).
    positive = jnp.maximum(r, 1e-4)
    at_r = denoise(x0 + expand(positive, x0) * eps, positive)
    at_r = jax.lax.stop_gradient(jnp.where(expand(r > 1e-4, x0), at_r, x0))
    squares = jnp.sum((at_s - at_r) ** 2, axis=tuple(range(1, x0.ndim)))
    # The difference of the rounded levels is exact, and it is they that the network is given.
    gap = jnp.maximum(s - r, jnp.finfo(s.dtype).eps * s)
    return (jnp.sqrt(squares + c**2 + 1e-12) - c) / gap


def consistency_sample(
    denoise: Denoiser,
    process: Process,
    times: Float[Array, " n"],
    keys: Key[Array, " b"],
    shape: tuple[int, ...],
) -> Float[Array, "b ..."]:
    """Samples by denoising and adding noise alternately (Song et al. 2023, algorithm 1).

    Args:
      denoise: the consistency model.
      process: the diffusion process.
      times: falling from t_max; one time for one step.
      keys: one per image.
      shape: of one image.
    """
    streams = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)

    def body(x0, i):
        noise = rng.normal(streams(i), shape)
        x = jnp.where(i == 0, process.prior_std * noise, process.add_noise(x0, noise, times[i]))
        return denoise(x, times[i]), None

    # The first step is inside the loop, so that the model is compiled once.
    x0 = jnp.zeros((keys.shape[0], *shape))
    return jax.lax.scan(body, x0, jnp.arange(times.shape[0]))[0]
