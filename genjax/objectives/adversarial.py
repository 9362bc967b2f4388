"""Losses of a generator against a discriminator, all functions of logits, all to be minimised.

D is the discriminator's logit, sigma the logistic function, r = D(x) of a real image and
f = D(G(z)) of a made one; -log sigma(a) = softplus(-a).
"""

import dataclasses
from collections.abc import Callable

import jax

softplus, relu = jax.nn.softplus, jax.nn.relu


@dataclasses.dataclass(frozen=True)
class Loss:
    """Both players' losses.

    Attributes:
      discriminator: (r [B], f [B], smoothing) -> [B].
      generator: (r [B], f [B]) -> [B].
      smooths: whether the real images' target can be 1 - smoothing (Salimans et al. 2016).
      relativistic: whether the generator's loss looks at r, and logits mean nothing but in pairs.
      signed: whether a logit above 0 says that an image is real, as ADA's feedback takes it.
    """

    discriminator: Callable
    generator: Callable
    smooths: bool = False
    relativistic: bool = False
    signed: bool = True


def cross_entropy(r, f, smoothing=0.0):
    """-(1 - s) log sigma(r) - s log(1 - sigma(r)) - log(1 - sigma(f))  (Goodfellow et al. 2014)."""
    return (1 - smoothing) * softplus(-r) + smoothing * softplus(r) + softplus(f)


def non_saturating(r, f):
    """-log sigma(f)  (Goodfellow et al. 2014, section 3)."""
    return softplus(-f)


def minimax(r, f):
    """log(1 - sigma(f)), what equation 1 says; it is flat where the discriminator is sure."""
    return -softplus(f)


def hinge_discriminator(r, f, smoothing=0.0):
    """max(0, 1 - r) + max(0, 1 + f)  (Lim & Ye 2017; Miyato et al. 2018, equation 16)."""
    return relu(1 - r) + relu(1 + f)


def least_squares_discriminator(r, f, smoothing=0.0):
    """((r - 1 + s)^2 + f^2) / 2  (Mao et al. 2017, equation 9)."""
    return 0.5 * ((r - 1 + smoothing) ** 2 + f**2)


def least_squares_generator(r, f):
    """(f - 1)^2 / 2  (likewise)."""
    return 0.5 * (f - 1) ** 2


def wasserstein_discriminator(r, f, smoothing=0.0):
    """f - r: minus the distance's bound, if D is 1-Lipschitz (Arjovsky et al. 2017)."""
    return f - r


def negative_logit(r, f):
    """-f, the generator's part of the Wasserstein and the hinge loss."""
    return -f


def relativistic_discriminator(r, f, smoothing=0.0):
    """-log sigma(r - f): one real image against one made (Jolicoeur-Martineau 2019)."""
    return softplus(f - r)


def relativistic_generator(r, f):
    """-log sigma(f - r)."""
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
