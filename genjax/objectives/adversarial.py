"""Losses of generator and discriminator, all functions of logits, all to be minimised.

D is the logit of the discriminator, sigma the logistic function, r = D(x) of a real image and
f = D(G(z)) of a generated one; -log sigma(a) = softplus(-a).
"""

import dataclasses
from collections.abc import Callable

import jax

from genjax.typing import Array, Float

softplus, relu = jax.nn.softplus, jax.nn.relu

Logits = Float[Array, " b"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """The losses of discriminator and generator.

    Attributes:
      discriminator: (r [B], f [B], smoothing) -> [B].
      generator: (r [B], f [B]) -> [B].
      smooths: whether the target of real images can be 1 - smoothing (Salimans et al. 2016).
      relativistic: whether the loss of the generator depends on r; then only differences of logits
        have a meaning.
      signed: whether a positive logit says that an image is real, as ADA's feedback assumes.
    """

    discriminator: Callable[..., Array]
    generator: Callable[[Array, Array], Array]
    smooths: bool = False
    relativistic: bool = False
    signed: bool = True


def cross_entropy(r: Logits, f: Logits, smoothing: float | int = 0.0) -> Logits:
    """Computes -(1 - s) log sigma(r) - s log(1 - sigma(r)) - log(1 - sigma(f)).

    Goodfellow et al. 2014, with smoothing s.
    """
    return (1 - smoothing) * softplus(-r) + smoothing * softplus(r) + softplus(f)


def non_saturating(r: Logits, f: Logits) -> Logits:
    """Computes -log sigma(f)  (Goodfellow et al. 2014, section 3)."""
    return softplus(-f)


def minimax(r: Logits, f: Logits) -> Logits:
    """Computes log(1 - sigma(f)), of equation 1; it is flat where the discriminator is sure."""
    return -softplus(f)


def hinge_discriminator(r: Logits, f: Logits, smoothing: float | int = 0.0) -> Logits:
    """Computes max(0, 1 - r) + max(0, 1 + f)  (Lim & Ye 2017; Miyato et al. 2018, equation 16)."""
    return relu(1 - r) + relu(1 + f)


def least_squares_discriminator(r: Logits, f: Logits, smoothing: float | int = 0.0) -> Logits:
    """Computes ((r - 1 + s)^2 + f^2) / 2  (Mao et al. 2017, equation 9)."""
    return 0.5 * ((r - 1 + smoothing) ** 2 + f**2)


def least_squares_generator(r: Logits, f: Logits) -> Logits:
    """Computes (f - 1)^2 / 2  (Mao et al. 2017, equation 9)."""
    return 0.5 * (f - 1) ** 2


def wasserstein_discriminator(r: Logits, f: Logits, smoothing: float | int = 0.0) -> Logits:
    """Computes f - r, minus the bound on the distance for 1-Lipschitz D (Arjovsky et al. 2017)."""
    return f - r


def negative_logit(r: Logits, f: Logits) -> Logits:
    """Computes -f, the generator's part of the Wasserstein and the hinge loss."""
    return -f


def relativistic_discriminator(r: Logits, f: Logits, smoothing: float | int = 0.0) -> Logits:
    """Computes -log sigma(r - f), for pairs of images (Jolicoeur-Martineau 2019)."""
    return softplus(f - r)


def relativistic_generator(r: Logits, f: Logits) -> Logits:
    """Computes -log sigma(f - r)."""
    return softplus(r - f)


LOSSES = {
    "non_saturating": Loss(cross_entropy, non_saturating, smooths=True),
    "minimax": Loss(cross_entropy, minimax, smooths=True),
    "hinge": Loss(hinge_discriminator, negative_logit),
    "least_squares": Loss(
        least_squares_discriminator, least_squares_generator, smooths=True, signed=False
    ),
    "wasserstein": Loss(wasserstein_discriminator, negative_logit, signed=False),
    "relativistic": Loss(
        relativistic_discriminator, relativistic_generator, relativistic=True, signed=False
    ),
}
