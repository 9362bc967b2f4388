"""Gaussian data with closed forms for everything: x_0 ~ N(MEAN, STD^2), in every dimension."""

import numpy as np

from genjax.diffusion.process import PROCESSES

MEAN, STD = 0.3, 0.6

CASES = {name: make() for name, make in PROCESSES.items()}


def denoiser(process, mean=MEAN, std=STD):
    """Returns the exact denoiser, E[x_0 | x_t]."""

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        shape = alpha.shape + (1,) * (x.ndim - alpha.ndim) if alpha.ndim else ()
        alpha, sigma = alpha.reshape(shape), sigma.reshape(shape)
        gain = alpha * std**2 / ((alpha * std) ** 2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    return denoise


def moments_at(process, t, mean=MEAN, std=STD):
    """Returns mean and standard deviation of x_t, float64."""
    alpha, sigma = (np.float64(c) for c in process.alpha_sigma(np.float32(t)))
    return alpha * mean, np.sqrt((alpha * std) ** 2 + sigma**2)
