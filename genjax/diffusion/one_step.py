"""Images in one step: mean flows and consistency training."""

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.process import expand


def meanflow_loss(u, x0, eps, r, t, power=1.0, c=1e-3):
    """Mean flows (Geng et al. 2025, algorithm 1) on the straight path x_t = (1 - t) x_0 + t eps.

    u(x, r, t) is the average of the velocity from r to t, so that x_r = x_t - (t - r) u, and
    (t - r) u = int_r^t v gives the identity u = v - (t - r) du/dt along the path.

    Args:
      u: (x [B, ...], r [B], t [B]) -> [B, ...]; differentiated forwards.
      x0, eps: [B, ...].
      r, t: [B], 0 <= r <= t <= 1.
      power, c: each example's squared error e counts e / (e + c)^power, the denominator held fixed.

    Returns:
      (loss [B], mean squared error of u [B]).
    """
    v = eps - x0
    x = x0 + expand(t, x0) * v
    average, derivative = jax.jvp(u, (x, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
    wanted = jax.lax.stop_gradient(v - expand(t - r, x) * derivative)
    axes = tuple(range(1, x.ndim))
    error = jnp.sum((average - wanted) ** 2, axis=axes)
    weight = jax.lax.stop_gradient(error + c) ** -power
    return weight * error, jnp.mean((average - wanted) ** 2, axis=axes)


def meanflow_times(keys, mean=-0.4, std=1.0, flow_ratio=0.75):
    """(r, t), each [B]: two logit-normal times in order; equal, plain flow, for a `flow_ratio`."""
    times = jax.nn.sigmoid(mean + std * rng.normal(keys, (2,)))
    r, t = jnp.min(times, axis=1), jnp.max(times, axis=1)
    same = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys) < flow_ratio
    return jnp.where(same, t, r), t


def meanflow_sample(u, x, num_steps):
    """From noise x [B, ...] at t = 1 to images in `num_steps` equal steps, one by default."""
    times = jnp.linspace(1.0, 0.0, num_steps + 1)

    def body(x, ends):
        t, r = (jnp.broadcast_to(end, x.shape[:1]) for end in ends)
        return x - expand(t - r, x) * u(x, r, t), None

    return jax.lax.scan(body, x, (times[:-1], times[1:]))[0]


def consistency_earlier(s, stage, q=2.0, k=8.0, b=1.0):
    """The less noisy s = sigma / alpha that s is to agree with (Geng et al. 2024, ECT, eq. 10-11).

      r / s = 1 - n(s) / q^stage,   n(s) = 1 + k sigmoid(-b s), at least 0

    Stage 0 is diffusion (r = 0), and r goes to s as the stages go on.
    """
    share = (1 + k * jax.nn.sigmoid(-b * s)) / q**stage
    return jnp.maximum(s * (1 - share), 0.0)


def consistency_loss(denoise, x0, eps, s, r, c=0.0):
    """Consistency training (Song et al. 2023; ECT): f(x_s, s) is to be f(x_r, r), the same noise.

    Args:
      denoise: (x [B, ...], s [B]) -> [B, ...], with alpha = 1 and sigma = s; the identity at s = 0
        (true of a network with target F).
      x0, eps: [B, ...].
      s, r: [B], 0 <= r < s.
      c: of the pseudo-Huber distance sqrt(|d|^2 + c^2) - c; 0 for the plain norm.

    Returns:
      The loss over (s - r), [B].
    """
    there = denoise(x0 + expand(s, x0) * eps, s)
    # At r = 0 the network would be told log(0); f is the identity there.
    positive = jnp.maximum(r, 1e-4)
    here = denoise(x0 + expand(positive, x0) * eps, positive)
    here = jax.lax.stop_gradient(jnp.where(expand(r > 1e-4, x0), here, x0))
    squares = jnp.sum((there - here) ** 2, axis=tuple(range(1, x0.ndim)))
    return (jnp.sqrt(squares + c**2 + 1e-12) - c) / (s - r)


def consistency_sample(denoise, process, times, keys, shape):
    """Denoise, put noise of the next time back, denoise (Song et al. 2023, algorithm 1).

    Args:
      times: [N], falling from t_max; N = 1 for one step.
      keys: [B].
      shape: of one image.
    """
    streams = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
    x0 = denoise(process.prior_std * rng.normal(streams(0), shape), times[0])

    def body(x0, i):
        x = process.add_noise(x0, rng.normal(streams(i), shape), times[i])
        return denoise(x, times[i]), None

    return jax.lax.scan(body, x0, jnp.arange(1, times.shape[0]))[0]
