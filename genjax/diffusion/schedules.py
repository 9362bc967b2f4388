"""Where a sampler stops on its way: times [N], falling from the noisiest to the cleanest.

After the last of them comes one more step, to the denoiser's image itself, so N is also the number
of times that a one-evaluation sampler calls the denoiser.
"""

import jax.numpy as jnp


def karras(process, num_steps, rho=7.0):
    """s = sigma / alpha, with s^(1/rho) in equal steps (Karras et al. 2022, eq. 5)."""
    high, low = (jnp.exp(-0.5 * r) for r in _log_snr_range(process))
    u = _ramp(num_steps)
    s = (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _inside(process, process.time_of_log_snr(-2 * jnp.log(s)))


def linear(process, num_steps):
    """t in equal steps; of a discrete process whole numbers."""
    t = process.t_max + _ramp(num_steps) * (process.t_min - process.t_max)
    return _inside(process, jnp.round(t) if process.num_steps else t)


def cosine(process, num_steps):
    """The angle arctan(sigma / alpha) in equal steps."""
    ends = jnp.asarray([process.t_max, process.t_min])
    alphas, sigmas = process.alpha_sigma(ends)
    first, last = jnp.arctan2(sigmas, alphas)
    angle = first + _ramp(num_steps) * (last - first)
    log_snr = 2 * (jnp.log(jnp.maximum(jnp.cos(angle), 1e-7)) - jnp.log(jnp.sin(angle)))
    return _inside(process, process.time_of_log_snr(log_snr))


def log_snr(process, num_steps):
    """log-SNR in equal steps (Lu et al. 2022)."""
    first, last = _log_snr_range(process)
    return _inside(process, process.time_of_log_snr(first + _ramp(num_steps) * (last - first)))


def _ramp(num_steps):
    """0..1 in `num_steps` equal steps; for one step, 0."""
    return jnp.linspace(0.0, 1.0, num_steps)


# Where alpha reaches 0 there is no log-SNR; schedules in it start at s = 1000 there.
_MIN_LOG_SNR = -2 * jnp.log(1e3).item()


def _log_snr_range(process):
    first, last = process.log_snr(jnp.asarray([process.t_max, process.t_min], jnp.float32))
    return jnp.maximum(first, _MIN_LOG_SNR), last


def _inside(process, t):
    """The ends exactly, and nothing beyond them by rounding."""
    t = jnp.clip(t, process.t_min, process.t_max).at[0].set(process.t_max)
    return t if t.shape[0] == 1 else t.at[-1].set(process.t_min)


# config.sample.schedule -> (process, num_steps) -> times [num_steps].
SCHEDULES = {"karras": karras, "linear": linear, "cosine": cosine, "log_snr": log_snr}
