"""The weight of each noise level in the loss, and the distribution of times in training.

A weighting is a function of the SNR that returns the weight of the squared error of x_0, whatever
the network predicts; every published weighting can be written that way. Only "simple" is the
unweighted squared error of the prediction itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.process import Process
from genjax.typing import Array, Float, Key

# --- Weightings -----------------------------------------------------------------------------------


def min_snr(
    snr: Float[Array, "..."], sigma_data: float | int = 0.5, gamma: float = 5.0
) -> Float[Array, "..."]:
    """Returns min(SNR, gamma) (Hang et al. 2023)."""
    return jnp.minimum(snr, gamma)


def p2(
    snr: Float[Array, "..."], sigma_data: float | int = 0.5, k: float = 1.0, gamma: float = 1.0
) -> Float[Array, "..."]:
    """Returns SNR / (k + SNR)^gamma (Choi et al. 2022), the eps loss over (k + SNR)^gamma."""
    return snr / (k + snr) ** gamma


def edm(snr: Float[Array, "..."], sigma_data: float | int = 0.5) -> Float[Array, "..."]:
    """Returns 1 / c_out^2 = SNR + 1 / sigma_data^2 (Karras et al. 2022)."""
    return snr + sigma_data**-2


def snr(snr: Float[Array, "..."], sigma_data: float | int = 0.5) -> Float[Array, "..."]:
    """Returns the SNR itself: the unweighted eps loss (Ho et al. 2020), for any target."""
    return snr


# config.objective.weighting -> (snr, sigma_data) -> weight of (x_0 - x0_hat)^2, or None.
WEIGHTINGS: dict[str, Callable[..., Float[Array, "..."]] | None] = {
    "simple": None,
    "snr": snr,
    "min_snr": min_snr,
    "p2": p2,
    "edm": edm,
}

# --- Times in training ----------------------------------------------------------------------------


def uniform(
    process: Process, keys: Key[Array, " b"], mean: float | int, std: float | int
) -> Float[Array, " b"]:
    """Draws uniform times; for a discrete process, whole numbers from 1 to T."""
    u = rng.uniform(keys, ())
    if process.num_steps:
        return 1.0 + jnp.floor(u * process.num_steps)
    return process.t_min + u * (process.t_max - process.t_min)


def logit_normal(
    process: Process, keys: Key[Array, " b"], mean: float | int, std: float | int
) -> Float[Array, " b"]:
    """Draws times whose logit, after scaling to [0, 1], is N(mean, std^2) (Esser et al. 2024)."""
    t = jax.nn.sigmoid(mean + std * rng.normal(keys, ()))
    return process.t_min + t * (process.t_max - process.t_min)


def log_normal(
    process: Process, keys: Key[Array, " b"], mean: float | int, std: float | int
) -> Float[Array, " b"]:
    """Draws times with log(sigma / alpha) from N(mean, std^2) (Karras et al. 2022).

    `mean` and `std` are the paper's P_mean and P_std.
    """
    log_s = mean + std * rng.normal(keys, ())
    t = process.time_of_log_snr(-2 * log_s)
    return jnp.clip(jnp.round(t) if process.num_steps else t, process.t_min, process.t_max)


# config.objective.time_sampling -> (process, keys [B], mean, std) -> t [B].
TIME_SAMPLINGS: dict[str, Callable[..., Float[Array, " b"]]] = {
    "uniform": uniform,
    "logit_normal": logit_normal,
    "log_normal": log_normal,
}
