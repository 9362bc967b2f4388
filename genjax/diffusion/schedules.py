"""The times at which a sampler evaluates the denoiser: [N], falling from noise to image.

After the last of them comes one more step, to x0_hat itself, so N is also the number of calls of
the denoiser by a sampler that needs one evaluation per step.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from genjax.diffusion.process import Process
from genjax.typing import Array, Float


def karras(process: Process, num_steps: int, rho: float = 7.0) -> Float[Array, " n"]:
    """Spaces s^(1/rho) evenly, s = sigma / alpha (Karras et al. 2022, eq. 5)."""
    high, low = (jnp.exp(-0.5 * r) for r in _log_snr_range(process))
    u = _ramp(num_steps)
    s = (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _with_exact_ends(process, process.time_of_log_snr(-2 * jnp.log(s)))


def linear(process: Process, num_steps: int) -> Float[Array, " n"]:
    """Spaces t evenly; for a discrete process, rounds it to whole numbers."""
    t = process.t_max + _ramp(num_steps) * (process.t_min - process.t_max)
    return _with_exact_ends(process, jnp.round(t) if process.num_steps else t)


def cosine(process: Process, num_steps: int) -> Float[Array, " n"]:
    """Spaces the angle arctan(sigma / alpha) evenly."""
    ends = jnp.asarray([process.t_max, process.t_min])
    alphas, sigmas = process.alpha_sigma(ends)
    first, last = jnp.arctan2(sigmas, alphas)
    angle = first + _ramp(num_steps) * (last - first)
    log_snr = 2 * (jnp.log(jnp.maximum(jnp.cos(angle), 1e-7)) - jnp.log(jnp.sin(angle)))
    return _with_exact_ends(process, process.time_of_log_snr(log_snr))


def log_snr(process: Process, num_steps: int) -> Float[Array, " n"]:
    """Spaces log-SNR evenly (Lu et al. 2022)."""
    first, last = _log_snr_range(process)
    t = process.time_of_log_snr(first + _ramp(num_steps) * (last - first))
    return _with_exact_ends(process, t)


def _ramp(num_steps: int) -> Float[Array, " n"]:
    """Returns `num_steps` evenly spaced numbers from 0 to 1; [0] for one."""
    return jnp.linspace(0.0, 1.0, num_steps)


# Where alpha is 0, log-SNR is -inf; schedules that space log-SNR then start at s = 1000.
_MIN_LOG_SNR = -2 * float(np.log(np.float32(1e3)))


def _log_snr_range(process: Process) -> tuple[Float[Array, ""], Float[Array, ""]]:
    first, last = process.log_snr(jnp.asarray([process.t_max, process.t_min], jnp.float32))
    return jnp.maximum(first, _MIN_LOG_SNR), last


def _with_exact_ends(process: Process, t: Float[Array, " n"]) -> Float[Array, " n"]:
    """Sets the ends to t_max and t_min, free of rounding errors, and clips the times between."""
    t = jnp.clip(t, process.t_min, process.t_max).at[0].set(process.t_max)
    return t if t.shape[0] == 1 else t.at[-1].set(process.t_min)


# config.sample.schedule -> (process, num_steps) -> times [num_steps].
SCHEDULES: dict[str, Callable[..., Float[Array, " n"]]] = {
    "karras": karras,
    "linear": linear,
    "cosine": cosine,
    "log_snr": log_snr,
}
