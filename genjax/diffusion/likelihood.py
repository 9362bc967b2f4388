"""The probability of an image under a diffusion model, in nats: a lower bound, and by its ODE."""

from types import ModuleType

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from genjax import rng
from genjax.diffusion.process import Denoiser, Process
from genjax.errors import UserError
from genjax.models.attention import plain_attention
from genjax.typing import AnyArray, Array, Float, Int, Key

# --- The variational bound ------------------------------------------------------------------------


def discretized_normal_log_prob(
    x: Float[Array, "b *shape"],
    mean: Float[Array, "b *shape"],
    std: Float[Array, ""] | float,
    levels: int = 256,
) -> Float[Array, " b"]:
    """Computes the log-mass of N(mean, std^2) in the bins of all pixels (Ho et al. 2020, eq. 13).

    The result is summed over pixels. The first and the last bin are open.

    Args:
      x: values -1 + 2 k / (levels - 1), k = 0..levels - 1.
      mean: of each pixel.
      std: the same for all pixels.
      levels: number of values a pixel can have.
    """
    half = 1.0 / (levels - 1)
    upper = jnp.where(x > 1 - half, jnp.inf, (x - mean + half) / std)
    lower = jnp.where(x < -1 + half, -jnp.inf, (x - mean - half) / std)
    # In the right tail both probabilities are close to 1; those of the mirror image are not.
    mirror = lower > 0
    upper, lower = jnp.where(mirror, -lower, upper), jnp.where(mirror, -upper, lower)
    log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
    log_mass = log_upper + jnp.log(-jnp.expm1(jnp.minimum(log_lower - log_upper, -1e-7)))
    return _sum(log_mass)


def vlb_terms(
    denoise: Denoiser,
    process: Process,
    times: Float[AnyArray, " n"],
    x0: Float[Array, "b *shape"],
    keys: Key[Array, " b"],
    num_draws: int = 1,
    levels: int = 256,
) -> dict[str, Float[Array, " b"]]:
    """Estimates the terms of -log P(x_0) <= prior + diffusion + reconstruction, in nats.

      prior           KL(q(x_T | x_0) || N(0, prior_std^2))
      diffusion       sum_i KL(q(x_i-1 | x_i, x_0) || q(x_i-1 | x_i, x0_hat))
                      = sum_i (SNR_i-1 - SNR_i) / 2 |x_0 - x0_hat(x_i)|^2
      reconstruction  -log P(x_0 | x_1), a discretised N(x0_hat, (sigma_1 / alpha_1)^2)

    (Sohl-Dickstein et al. 2015; Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 13.)

    Args:
      denoise: the denoiser; here t is [B].
      process: the diffusion process.
      times: falling, those of the chain: T..1 of a discrete process for its own bound.
      x0: images in [-1, 1], see `discretized_normal_log_prob`.
      keys: one per image.
      num_draws: how many terms of the sum over i to evaluate for each image, one from each of
        `num_draws` equal parts of the sum; N - 1 for all of them.
      levels: number of values a pixel can have.
    """
    times = jnp.asarray(times, jnp.float32)
    count = times.shape[0] - 1
    streams = lambda i: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
    alphas, sigmas = process.alpha_sigma(times)
    snr = (alphas / sigmas) ** 2

    ratio = (sigmas[0] / process.prior_std) ** 2
    mean = alphas[0] * x0 / process.prior_std
    prior = 0.5 * _sum(mean**2 + (ratio - 1.0 - jnp.log(ratio)))

    def denoised(t, noise_keys):
        x = process.add_noise(x0, rng.normal(noise_keys, x0.shape[1:]), t)
        return denoise(x, t)

    u = rng.uniform(streams(0), ())

    def term(total, k):
        i = jnp.floor((k + u) / num_draws * count).astype(jnp.int32)
        i = jnp.minimum(i, count - 1)
        gain = 0.5 * (snr[i + 1] - snr[i])
        return total + gain * _sum((x0 - denoised(times[i], streams(k + 2))) ** 2), None

    total, _ = jax.lax.scan(term, jnp.zeros(x0.shape[0]), jnp.arange(num_draws))
    diffusion = total * count / num_draws

    last = jnp.full(x0.shape[0], times[-1])
    std = sigmas[-1] / alphas[-1]
    recon = -discretized_normal_log_prob(x0, denoised(last, streams(1)), std, levels)
    return {"prior": prior, "diffusion": diffusion, "reconstruction": recon}


# --- The density by the probability-flow ODE ------------------------------------------------------


def ode_log_prob(
    denoise: Denoiser,
    process: Process,
    images: Float[Array, "b *shape"],
    probes: Float[Array, "b *shape"],
    tolerance: float = 1e-5,
    max_steps: int = 4096,
) -> tuple[Float[Array, " b"], Int[Array, " b"]]:
    """Computes log p(images) by the probability-flow ODE (Song et al. 2021b, section 4.3), in nats.

    With x = r (cos(phi) x_0 + sin(phi) eps), every process has the same ODE, d(x / r) / d phi = v,
    on a bounded interval of the angle phi. It is solved there (Dormand & Prince 5(4) of diffrax,
    with step sizes of its own for each image), together with the divergence of v, estimated as
    probe^T dv/dx probe (Hutchinson; Grathwohl et al. 2019).

    Args:
      denoise: the denoiser.
      process: the diffusion process; the images are taken as x / alpha at its t_min.
      images: in [-1, 1].
      probes: noise of mean 0 and variance 1; that of `rademacher` has the least variance.
      tolerance: absolute and relative, of each step.
      max_steps: limit of the solver.

    Returns:
      (log-density of the images, steps of the solver); NaN where `max_steps` were not enough.

    Raises:
      UserError: diffrax is not installed.
    """
    diffrax = _import_diffrax()
    ends = jnp.asarray([process.t_min, process.t_max], jnp.float32)
    alphas, sigmas = process.alpha_sigma(ends)
    first, last = jnp.arctan2(sigmas, alphas)
    radii = jnp.sqrt(alphas**2 + sigmas**2)

    def v(phi, y):
        cos, sin = jnp.cos(phi), jnp.sin(phi)
        t = process.time_of_log_snr(2 * (jnp.log(jnp.maximum(cos, 1e-7)) - jnp.log(sin)))
        t = jnp.clip(t, process.t_min, process.t_max)
        alpha, sigma = process.alpha_sigma(t)
        x0 = denoise(y[None] * jnp.sqrt(alpha**2 + sigma**2), t)[0]
        eps = (y - cos * x0) / sin
        return cos * eps - sin * x0

    def derivative(phi, state, probe):
        with plain_attention():
            slope, pushed = jax.jvp(lambda y: v(phi, y), (state[0],), (probe,))
        return slope, jnp.sum(probe * pushed)

    def log_prob_of_one(image, probe):
        start = image * alphas[0] / radii[0], jnp.zeros(())
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(derivative),
            diffrax.Dopri5(),
            first,
            last,
            None,
            start,
            args=probe,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=max_steps,
            throw=False,
        )
        y, divergence = (leaf[0] for leaf in solution.ys)
        done = solution.result == diffrax.RESULTS.successful
        std = process.prior_std / radii[1]
        log_prior = -0.5 * jnp.sum((y / std) ** 2 + jnp.log(2 * jnp.pi * std**2))
        log_prob = log_prior + divergence + image.size * jnp.log(alphas[0] / radii[0])
        return jnp.where(done, log_prob, jnp.nan), solution.stats["num_steps"]

    return jax.vmap(log_prob_of_one)(images, probes)


def _import_diffrax() -> ModuleType:
    try:
        import diffrax
    except ModuleNotFoundError as error:
        raise UserError(
            "the likelihood by the ODE (config.eval.ode_tolerance above 0) needs the package "
            "diffrax, which is not installed: pip install -e '.[ode]'"
        ) from error
    return diffrax


def rademacher(keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Draws -1 or 1, each with probability 1/2: row i, of the given shape, from keys[i]."""
    return jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.float32))(keys)


def dequantize(
    x: Float[Array, "b *shape"], keys: Key[Array, " b"], levels: int = 256
) -> Float[Array, "b *shape"]:
    """Draws images uniformly from the bins of their pixels.

    -1 + 2 k / (levels - 1) becomes -1 + 2 (k + u) / levels, with u uniform in [0, 1).
    """
    k = jnp.round((x + 1) * (levels - 1) / 2)
    return 2 * (k + rng.uniform(keys, x.shape[1:])) / levels - 1


def _sum(x: Float[Array, "b ..."]) -> Float[Array, " b"]:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))
