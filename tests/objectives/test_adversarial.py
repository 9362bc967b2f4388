"""Losses of games against their closed forms, naively in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.objectives.adversarial import LOSSES

R = np.array([-3.0, -0.5, 0.0, 0.7, 4.0])
F = np.array([1.5, -2.0, 0.0, 0.2, -6.0])


def sigma(a):
    return 1 / (1 + np.exp(-a))


# (discriminator's loss with smoothing s, generator's), as the papers write them.
BY_HAND = {
    "non_saturating": (
        lambda r, f, s: -(1 - s) * np.log(sigma(r)) - s * np.log(1 - sigma(r)) - np.log(sigma(-f)),
        lambda r, f: -np.log(sigma(f)),
    ),
    "minimax": (
        lambda r, f, s: -(1 - s) * np.log(sigma(r)) - s * np.log(1 - sigma(r)) - np.log(sigma(-f)),
        lambda r, f: np.log(1 - sigma(f)),
    ),
    "hinge": (
        lambda r, f, s: -np.minimum(0, r - 1) - np.minimum(0, -1 - f),
        lambda r, f: -f,
    ),
    "least_squares": (
        lambda r, f, s: ((r - (1 - s)) ** 2 + f**2) / 2,
        lambda r, f: (f - 1) ** 2 / 2,
    ),
    "wasserstein": (lambda r, f, s: -(r - f), lambda r, f: -f),
    "relativistic": (
        lambda r, f, s: -np.log(sigma(r - f)),
        lambda r, f: -np.log(sigma(f - r)),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_what_its_paper_writes(name):
    loss, (discriminator, generator) = LOSSES[name], BY_HAND[name]
    for smoothing in (0.0, 0.1) if loss.smooths else (0.0,):
        result = loss.discriminator(jnp.array(R), jnp.array(F), smoothing)
        np.testing.assert_allclose(result, discriminator(R, F, smoothing), rtol=1e-5, atol=1e-6)
    result = loss.generator(jnp.array(R), jnp.array(F))
    np.testing.assert_allclose(result, generator(R, F), rtol=1e-5, atol=1e-6)
    assert loss.relativistic == (name == "relativistic")


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_those_of_finite_differences(name):
    loss = LOSSES[name]
    h = 1e-3
    r, f = jnp.array(R + 0.013), jnp.array(F + 0.017)  # off the hinge
    for fn in (lambda r, f: loss.discriminator(r, f, 0.0), loss.generator):
        for which in (0, 1):
            result = jax.grad(lambda r, f, fn=fn: jnp.sum(fn(r, f)), which)(r, f)
            up = [r, f][:which] + [[r, f][which] + h] + [r, f][which + 1 :]
            down = [r, f][:which] + [[r, f][which] - h] + [r, f][which + 1 :]
            np.testing.assert_allclose(result, (fn(*up) - fn(*down)) / (2 * h), atol=2e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_discriminator_wants_real_above_made_and_the_generator_the_reverse(name):
    loss, zero = LOSSES[name], jnp.zeros(1)
    worse = loss.discriminator(zero - 0.3, zero + 0.3, 0.0)
    assert loss.discriminator(zero + 0.3, zero - 0.3, 0.0)[0] < worse[0]
    assert loss.generator(zero, zero + 0.3)[0] < loss.generator(zero, zero - 0.3)[0]


def test_sure_logits_are_finite():
    far = jnp.array([-1e4, 1e4])
    for loss in LOSSES.values():
        for value in (loss.discriminator(far, -far, 0.0), loss.generator(far, -far)):
            assert jnp.isfinite(value).all()
