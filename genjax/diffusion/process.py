"""Diffusion processes: how an image is gradually replaced by noise.

  q(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I),    x_t = alpha x_0 + sigma eps,

where the signal-to-noise ratio SNR = alpha^2 / sigma^2 falls in t. Two processes with the same
log-SNR differ only in units: of x (alpha, alpha^2 + sigma^2 or alpha + sigma is constantly 1) and
of t.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from genjax.typing import AnyArray, Array, Float, Num, Shaped

# One time for all examples, or one per example [B].
Time: TypeAlias = Num[AnyArray, "..."] | np.floating | float | int

# (x [B, ...], t) -> x0_hat [B, ...], the posterior mean E[x_0 | x_t = x].
Denoiser: TypeAlias = Callable[[Float[Array, "b ..."], Float[Array, "..."]], Float[Array, "b ..."]]


@dataclasses.dataclass(frozen=True)
class Process:
    """A family of distributions q(x_t | x_0), t in [t_min, t_max].

    All functions are elementwise in t.

    Attributes:
      alpha_sigma: t -> (alpha, sigma), with sigma > 0 for all t >= t_min.
      time_of_log_snr: log(alpha^2 / sigma^2) -> t, the inverse of `log_snr`.
      t_min: the smallest time used in training, and the last one before sampling returns x0_hat.
      t_max: the time at which sampling starts.
      c_noise: t -> the number that a network takes for the time, of its usual order of magnitude.
      num_steps: T of a discrete process, whose times are 1..T; 0 for a continuous one.
    """

    alpha_sigma: Callable[[Time], tuple[Float[Array, "..."], Float[Array, "..."]]]
    time_of_log_snr: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    t_min: float | int
    t_max: float | int
    c_noise: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    num_steps: int = 0

    def log_snr(self, t: Time) -> Float[Array, "..."]:
        """Returns log(alpha^2 / sigma^2); -inf where alpha is 0."""
        alpha, sigma = self.alpha_sigma(t)
        return 2 * (jnp.log(alpha) - jnp.log(sigma))

    def derivatives(self, t: Time) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Returns (d alpha / dt, d sigma / dt) of a continuous process."""
        t = jnp.asarray(t, jnp.float32)
        return jax.jvp(self.alpha_sigma, (t,), (jnp.ones_like(t),))[1]

    def add_noise(
        self, x0: Float[Array, "b *shape"], eps: Float[Array, "b *shape"], t: Time
    ) -> Float[Array, "b *shape"]:
        """Returns x_t = alpha x_0 + sigma eps."""
        alpha, sigma = (expand(c, x0) for c in self.alpha_sigma(t))
        return alpha * x0 + sigma * eps

    @property
    def prior_std(self) -> Float[Array, ""]:
        """The standard deviation of the Gaussian that sampling starts from."""
        return self.alpha_sigma(jnp.float32(self.t_max))[1]


def expand(
    coefficient: Shaped[AnyArray, "..."] | float, x: Shaped[AnyArray, "b ..."]
) -> Shaped[Array, "..."]:
    """Reshapes a coefficient, a scalar or one number per example [B], to broadcast with x."""
    coefficient = jnp.asarray(coefficient)
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


def discrete(betas: Float[np.ndarray, " steps"]) -> Process:
    """Builds the DDPM chain (Ho et al. 2020) of variances betas: alpha_bar_t = prod (1 - beta_s).

    Time 0 is the clean image, times 1..T are the paper's; between them log-SNR is linear in t.
    Networks take t - 1, as in the paper's code and its successors.
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


def ddpm_linear(
    num_steps: int = 1000, beta_start: float | int = 1e-4, beta_end: float | int = 0.02
) -> Process:
    """Builds the chain with linearly growing betas (Ho et al. 2020, section 4)."""
    return discrete(np.linspace(beta_start, beta_end, num_steps, dtype=np.float64))


def ddpm_cosine(
    num_steps: int = 1000, s: float | int = 0.008, max_beta: float | int = 0.999
) -> Process:
    """Builds the chain with the cosine schedule (Nichol & Dhariwal 2021, eq. 17)."""
    t = np.arange(num_steps + 1, dtype=np.float64) / num_steps
    f = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    return discrete(np.minimum(1 - f[1:] / f[:-1], max_beta))


def _vp_log_alpha(t: Time, beta_min: float | int, beta_max: float | int) -> Time:
    return -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min


def _vp_time_of_log_alpha(
    log_alpha: Float[Array, "*t"], beta_min: float | int, beta_max: float | int
) -> Float[Array, "*t"]:
    c = -2 * log_alpha  # = (beta_max - beta_min) t^2 / 2 + beta_min t
    return 2 * c / (beta_min + jnp.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * c))


def vp(
    beta_min: float | int = 0.1, beta_max: float | int = 20.0, t_min: float | int = 1e-3
) -> Process:
    """Builds the variance preserving SDE (Song et al. 2021b, eq. 32-33), t in (0, 1].

    alpha^2 + sigma^2 = 1.
    """

    def alpha_sigma(t):
        log_alpha = _vp_log_alpha(t, beta_min, beta_max)
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    def time_of_log_snr(log_snr):
        log_alpha = -0.5 * jax.nn.softplus(-log_snr)
        return _vp_time_of_log_alpha(log_alpha, beta_min, beta_max)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 999.0 * t)


def sub_vp(
    beta_min: float | int = 0.1, beta_max: float | int = 20.0, t_min: float | int = 1e-3
) -> Process:
    """Builds the sub-VP SDE (Song et al. 2021b, appendix B): sigma = 1 - alpha^2."""

    def alpha_sigma(t):
        log_alpha = _vp_log_alpha(t, beta_min, beta_max)
        return jnp.exp(log_alpha), -jnp.expm1(2 * log_alpha)

    def time_of_log_snr(log_snr):
        # alpha^2 + alpha s = 1 with s = sigma / alpha, so alpha = exp(-asinh(s / 2)).
        log_alpha = -jnp.arcsinh(0.5 * jnp.exp(-0.5 * log_snr))
        return _vp_time_of_log_alpha(log_alpha, beta_min, beta_max)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 999.0 * t)


def ve(sigma_min: float | int = 0.01, sigma_max: float | int = 50.0) -> Process:
    """Builds the variance exploding SDE (Song et al. 2021b, eq. 31).

    alpha = 1, and sigma is geometric in t.
    """
    ratio = np.log(sigma_max / sigma_min)

    def alpha_sigma(t):
        sigma = sigma_min * jnp.exp(ratio * jnp.asarray(t, jnp.float32))
        return jnp.ones_like(sigma), sigma

    def time_of_log_snr(log_snr):
        return (-0.5 * log_snr - np.log(sigma_min)) / ratio

    return Process(alpha_sigma, time_of_log_snr, 0.0, 1.0, lambda t: jnp.log(alpha_sigma(t)[1]) / 4)


def edm(sigma_min: float | int = 0.002, sigma_max: float | int = 80.0) -> Process:
    """Builds the process of Karras et al. 2022: alpha = 1, and time is sigma itself."""

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


def flow(t_min: float | int = 1e-3) -> Process:
    """Builds the straight path of flow matching (Lipman et al. 2023; Liu et al. 2023).

    x_t = (1 - t) x_0 + t eps. As in all processes here, t = 0 is the image.
    """

    def alpha_sigma(t):
        t = jnp.asarray(t, jnp.float32)
        return 1.0 - t, t

    def time_of_log_snr(log_snr):
        return jax.nn.sigmoid(-0.5 * log_snr)

    return Process(alpha_sigma, time_of_log_snr, t_min, 1.0, lambda t: 1000.0 * t)


# config.process.name -> a function of the other fields of config.process.
PROCESSES: dict[str, Callable[..., Process]] = {
    "ddpm_linear": ddpm_linear,
    "ddpm_cosine": ddpm_cosine,
    "vp": vp,
    "sub_vp": sub_vp,
    "ve": ve,
    "edm": edm,
    "flow": flow,
}
