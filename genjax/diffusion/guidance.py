"""Denoisers made of denoisers: guidance, clipping, known pixels."""

import jax
import jax.numpy as jnp


def classifier_free(denoise, labels, nothing, process, scale, interval=(0.0, float("inf"))):
    """Classifier-free guidance (Ho & Salimans 2022), both classes in one evaluation.

    Args:
      denoise: (x, t, labels) -> x0_hat.
      labels: int [B]. nothing: likewise, what stands for no class.
      process, scale, interval: as of `guided`.
    """

    def both(x, t):
        pairs = denoise(jnp.concatenate([x, x]), t, jnp.concatenate([labels, nothing]))
        better, worse = jnp.split(pairs, 2)
        return worse + scale * (better - worse)

    alone = lambda x, t: denoise(x, t, labels)
    return _inside(both, alone, process, interval) if scale != 1 else alone


def guided(denoise, weaker, process, scale, interval=(0.0, float("inf"))):
    """weaker + scale (denoise - weaker), inside an interval of noise levels.

    Autoguidance (Karras et al. 2024) where `weaker` is a smaller or less trained net. Outside of
    the interval of s = sigma / alpha (Kynkaanniemi et al. 2024) the weaker one is not evaluated.

    Args:
      denoise, weaker: denoisers.
      process: a `Process`.
      scale: 1 for none.
      interval: (low, high], in s = sigma / alpha.
    """

    def both(x, t):
        worse = weaker(x, t)
        return worse + scale * (denoise(x, t) - worse)

    return _inside(both, denoise, process, interval) if scale != 1 else denoise


def _inside(inner, outer, process, interval):
    """A denoiser that is one of two, by the noise level."""
    low, high = interval
    if low <= 0 and high == float("inf"):
        return inner

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        s = sigma / alpha
        return jax.lax.cond((s > low) & (s <= high), inner, outer, x, t)

    return denoise


def clipped(denoise):
    """x0_hat kept in [-1, 1], the range of the images (Ho et al. 2020)."""
    return lambda x, t: jnp.clip(denoise(x, t), -1.0, 1.0)


def inpainting(denoise, known, mask):
    """x0_hat with the pixels that are known put in (Wang et al. 2023, DDNM, eq. 13).

    Args:
      denoise: a denoiser.
      known: [B, ...]; what it says where the mask is 0 does not matter.
      mask: like it, 1 where a pixel is known.
    """
    return lambda x, t: jnp.where(mask > 0, known, denoise(x, t))
