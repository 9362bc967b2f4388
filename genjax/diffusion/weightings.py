"""How much each noise level counts in the loss, and how often it is drawn.

A weighting is a function of the SNR that says what the squared error of x_0 counts, whatever the
network predicts; so is every published one, once it is written that way. "simple" alone is the
plain squared error of the prediction itself.
"""

import jax
import jax.numpy as jnp

from genjax import rng


def min_snr(snr, sigma_data=0.5, gamma=5.0):
    """Hang et al. 2023: min(SNR, gamma)."""
    return jnp.minimum(snr, gamma)


def p2(snr, sigma_data=0.5, k=1.0, gamma=1.0):
    """Choi et al. 2022: SNR / (k + SNR)^gamma, the plain eps loss over (k + SNR)^gamma."""
    return snr / (k + snr) ** gamma


def edm(snr, sigma_data=0.5):
    """Karras et al. 2022: 1 / c_out^2 = SNR + 1 / sigma_data^2."""
    return snr + sigma_data**-2


def snr(snr, sigma_data=0.5):
    """The plain eps loss (Ho et al. 2020) for any target."""
    return snr


# config.objective.weighting -> (snr, sigma_data) -> weight of (x_0 - x0_hat)^2, or None.
WEIGHTINGS = {"simple": None, "snr": snr, "min_snr": min_snr, "p2": p2, "edm": edm}


def uniform(process, keys, mean, std):
    """t uniform; of a discrete process a whole number from 1 to T."""
    u = rng.uniform(keys, ())
    if process.num_steps:
        return 1.0 + jnp.floor(u * process.num_steps)
    return process.t_min + u * (process.t_max - process.t_min)


def logit_normal(process, keys, mean, std):
    """Esser et al. 2024: logit of t, as a share of t_max, is N(mean, std^2)."""
    t = jax.nn.sigmoid(mean + std * rng.normal(keys, ()))
    return process.t_min + t * (process.t_max - process.t_min)


def log_normal(process, keys, mean, std):
    """Karras et al. 2022: log(sigma / alpha) is N(mean, std^2), P_mean and P_std there."""
    log_s = mean + std * rng.normal(keys, ())
    t = process.time_of_log_snr(-2 * log_s)
    return jnp.clip(jnp.round(t) if process.num_steps else t, process.t_min, process.t_max)


# config.objective.time_sampling -> (process, keys [B], mean, std) -> t [B].
TIME_SAMPLINGS = {"uniform": uniform, "logit_normal": logit_normal, "log_normal": log_normal}
