"""Denoisers made from denoisers: guidance, clipping, inpainting."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.diffusion.process import Denoiser, Process
from genjax.typing import Array, Bool, Float, Int


def classifier_free(
    denoise: Callable[..., Float[Array, "b ..."]],
    labels: Int[Array, " b"],
    no_class: Int[Array, " b"],
    process: Process,
    scale: float | int,
    interval: tuple[float | int, float | int] = (0.0, float("inf")),
) -> Denoiser:
    """Returns the denoiser of classifier-free guidance (Ho & Salimans 2022).

    The predictions with and without labels come from one evaluation, of twice the batch.

    Args:
      denoise: (x, t, labels) -> x0_hat.
      labels: the classes.
      no_class: the label that stands for no class, for each example.
      process: the diffusion process.
      scale: 1 for no guidance, see `guided`.
      interval: the noise levels at which to guide, see `guided`.
    """

    def guided_denoise(x, t):
        pairs = denoise(jnp.concatenate([x, x]), t, jnp.concatenate([labels, no_class]))
        conditional, unconditional = jnp.split(pairs, 2)
        return unconditional + scale * (conditional - unconditional)

    plain = lambda x, t: denoise(x, t, labels)
    return _inside_interval(guided_denoise, plain, process, interval) if scale != 1 else plain


def guided(
    denoise: Denoiser,
    guide: Denoiser,
    process: Process,
    scale: float | int,
    interval: tuple[float | int, float | int] = (0.0, float("inf")),
) -> Denoiser:
    """Returns guide + scale (denoise - guide), applied inside an interval of noise levels.

    With a smaller or less trained network as the guide this is autoguidance (Karras et al. 2024).
    Outside of the interval (Kynkaanniemi et al. 2024) the guide is not evaluated.

    Args:
      denoise: the denoiser to improve.
      guide: the weaker denoiser.
      process: the diffusion process.
      scale: 1 for no guidance.
      interval: (low, high], of s = sigma / alpha.
    """

    def guided_denoise(x, t):
        weaker = guide(x, t)
        return weaker + scale * (denoise(x, t) - weaker)

    return _inside_interval(guided_denoise, denoise, process, interval) if scale != 1 else denoise


def _inside_interval(
    inner: Denoiser,
    outer: Denoiser,
    process: Process,
    interval: tuple[float | int, float | int],
) -> Denoiser:
    """Returns the denoiser that is `inner` inside the interval of noise levels, else `outer`."""
    low, high = interval
    if low <= 0 and high == float("inf"):
        return inner

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        s = sigma / alpha
        return jax.lax.cond((s > low) & (s <= high), inner, outer, x, t)

    return denoise


def clipped(denoise: Denoiser) -> Denoiser:
    """Clips x0_hat to [-1, 1], the range of the images (Ho et al. 2020)."""
    return lambda x, t: jnp.clip(denoise(x, t), -1.0, 1.0)


def inpainting(
    denoise: Denoiser,
    known: Float[Array, "b *shape"],
    mask: Float[Array, "b *shape"] | Bool[Array, "b *shape"],
) -> Denoiser:
    """Sets the known pixels of x0_hat (Wang et al. 2023, DDNM, eq. 13).

    Args:
      denoise: the denoiser.
      known: the images; arbitrary where the mask is 0.
      mask: 1 where a pixel is known, else 0.
    """
    return lambda x, t: jnp.where(mask > 0, known, denoise(x, t))
