"""Processes: how an image is lost in noise.

  q(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I),    x_t = alpha x_0 + sigma eps,

with signal-to-noise ratio SNR = alpha^2 / sigma^2 falling in t. What a process is beyond its
log-SNR is a choice of units: of x (whether alpha stays 1, alpha^2 + sigma^2 does, or alpha + sigma)
and of t.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Process:
    """A family q(x_t | x_0), t in [t_min, t_max]. All functions are elementwise in t.

    Attributes:
      alpha_sigma: t -> (alpha, sigma), sigma > 0 wherever t >= t_min.
      time_of_log_snr: log(alpha^2 / sigma^2) -> t, the inverse of `log_snr`.
      t_min: the smallest time that is trained on and that sampling goes to before its last step.
      t_max: where sampling starts.
      c_noise: t -> the number that a network is told, of the order it is used to.
      num_steps: T of a discrete process, whose times are 1..T; 0 for a continuous one.
    """

    alpha_sigma: Callable
    time_of_log_snr: Callable
    t_min: float
    t_max: float
    c_noise: Callable
    num_steps: int = 0

    def log_snr(self, t):
        """log(alpha^2 / sigma^2); -inf where alpha is 0."""
        alpha, sigma = self.alpha_sigma(t)
        return 2 * (jnp.log(alpha) - jnp.log(sigma))

    def derivatives(self, t):
        """(d alpha / dt, d sigma / dt) of a continuous process."""
        t = jnp.asarray(t, jnp.float32)
        return jax.jvp(self.alpha_sigma, (t,), (jnp.ones_like(t),))[1]

    def add_noise(self, x0, eps, t):
        """x_t of x_0 and eps, both [B, ...], at t [B] or scalar."""
        alpha, sigma = (expand(c, x0) for c in self.alpha_sigma(t))
        return alpha * x0 + sigma * eps

    @property
    def prior_std(self):
        """Standard deviation of the Gaussian that sampling starts from."""
        return self.alpha_sigma(jnp.float32(self.t_max))[1]


def expand(coefficient, x):
    """A scalar, or one number an example [B], shaped to multiply x [B, ...]."""
    coefficient = jnp.asarray(coefficient)
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


def discrete(betas):
    """The DDPM chain (Ho et al. 2020) of variances betas [T], as alpha_bar_t = prod (1 - beta_s).

    Time 0 is the clean image, 1..T are the paper's; between two of them log-SNR is linear in t.
    Networks are told t - 1, as in the paper's code and those after it.
    """
    alpha_bar = np.cumprod(1.0 - np.asarray(betas, np.float64))
    log_snrs = np.float32(np.log(alpha_bar) - np.log1p(-alpha_bar))  # falling
    steps = np.arange(1, len(betas) + 1, dtype=np.float32)

    def alpha_sigma(t):
        log_snr = jnp.interp(jnp.asarray(t, jnp.float32), steps, log_snrs)
        return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))

    def time_of_log_snr(log_snr):
        return jnp.interp(-jnp.asarray(log_snr, jnp.float32), -log_snrs, steps)

    return Process(
        alpha_sigma, time_of_log_snr, 1.0, float(len(betas)), lambda t: t - 1.0, len(betas)
    )


def ddpm_linear(num_steps=1000, beta_start=1e-4, beta_end=0.02):
    """Ho et al. 2020, section 4."""
    return discrete(np.linspace(beta_start, beta_end, num_steps, dtype=np.float64))


def ddpm_cosine(num_steps=1000, s=0.008, max_beta=0.999):
    """Nichol & Dhariwal 2021, eq. 17."""
    t = np.arange(num_steps + 1, dtype=np.float64) / num_steps
    f = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    return discrete(np.minimum(1 - f[1:] / f[:-1], max_beta))


def _vp_log_alpha(t, beta_min, beta_max):
    return -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min


def _vp_time_of_log_alpha(log_alpha, beta_min, beta_max):
    c = -2 * log_alpha  # = (beta_max - beta_min) t^2 / 2 + beta_min t
    return 2 * c / (beta_min + jnp.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * c))


def vp(beta_min=0.1, beta_max=20.0, t_min=1e-3):
    """Variance preserving SDE (Song et al. 2021, eq. 32-33): alpha^2 + sigma^2 = 1, t in (0, 1]."""

    def alpha_sigma(t):
        log_alpha = _vp_log_alpha(t, beta_min, beta_max)
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    def time_of_log_snr(log_snr):
        log_alpha = -0.5 * jax.nn.softplus(-log_snr)
        return _vp_time_of_log_alpha(log_alpha, beta_min, beta_max)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 999.0 * t)


def sub_vp(beta_min=0.1, beta_max=20.0, t_min=1e-3):
    """Sub-VP SDE (Song et al. 2021, appendix B): sigma = 1 - alpha^2."""

    def alpha_sigma(t):
        log_alpha = _vp_log_alpha(t, beta_min, beta_max)
        return jnp.exp(log_alpha), -jnp.expm1(2 * log_alpha)

    def time_of_log_snr(log_snr):
        # alpha^2 + alpha s = 1 with s = sigma / alpha, so alpha = exp(-asinh(s / 2)).
        log_alpha = -jnp.arcsinh(0.5 * jnp.exp(-0.5 * log_snr))
        return _vp_time_of_log_alpha(log_alpha, beta_min, beta_max)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 999.0 * t)


def ve(sigma_min=0.01, sigma_max=50.0):
    """Variance exploding SDE (Song et al. 2021, eq. 31): alpha = 1, sigma geometric in t."""
    ratio = np.log(sigma_max / sigma_min)

    def alpha_sigma(t):
        sigma = sigma_min * jnp.exp(ratio * jnp.asarray(t, jnp.float32))
        return jnp.ones_like(sigma), sigma

    def time_of_log_snr(log_snr):
        return (-0.5 * log_snr - np.log(sigma_min)) / ratio

    return Process(alpha_sigma, time_of_log_snr, 0.0, 1.0, lambda t: jnp.log(alpha_sigma(t)[1]) / 4)


def edm(sigma_min=0.002, sigma_max=80.0):
    """Karras et al. 2022: alpha = 1, and time is sigma itself."""

    def alpha_sigma(t):
        t = jnp.asarray(t, jnp.float32)
        return jnp.ones_like(t), t

    return Process(
        alpha_sigma,
        lambda log_snr: jnp.exp(-0.5 * log_snr),
        sigma_min,
        sigma_max,
        lambda t: jnp.log(t) / 4,
    )


def flow(t_min=1e-3):
    """Flow matching's straight path (Lipman et al. 2023; Liu et al. 2023), (1 - t) x_0 + t eps.

    Time runs from the image at 0 to noise at 1, as everywhere here.
    """

    def alpha_sigma(t):
        t = jnp.asarray(t, jnp.float32)
        return 1.0 - t, t

    def time_of_log_snr(log_snr):
        return jax.nn.sigmoid(-0.5 * log_snr)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 1000.0 * t)


# config.process.name -> a function of the process's own numbers.
PROCESSES = {
    "ddpm_linear": ddpm_linear,
    "ddpm_cosine": ddpm_cosine,
    "vp": vp,
    "sub_vp": sub_vp,
    "ve": ve,
    "edm": edm,
    "flow": flow,
}
