"""Samplers: from noise to images, one compiled loop, one signature.

A sampler is a `Step`, (denoise, x, i, path, past, noise) -> (x at the next point, x0_hat), and the
loop does the rest: it keeps the history that multistep methods look at, draws noise, and after the
last point puts the denoiser's own image. A new sampler is one function.

All of them walk over points (alpha_i, sigma_i) of a `Path` and never differentiate in time: where
the probability-flow ODE leads from one noise level to another does not depend on the process
between the two, so that between points we may as well take the straight line

  dx = d alpha x0_hat + d sigma eps_hat,   eps_hat = (x - alpha x0_hat) / sigma.

With alpha = 1 and sigma = t those are the steps of Karras et al. 2022; with alpha = 1 - t and
sigma = t those of flow matching in t; Euler's is DDIM on any process.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from genjax import rng


class Path(flax.struct.PyTreeNode):
    """Points that a sampler stops at: arrays [N] of all of them, or scalars of one.

    Attributes:
      t: times.
      alpha, sigma: of the process at t.
    """

    t: jax.Array
    alpha: jax.Array
    sigma: jax.Array

    @classmethod
    def of(cls, process, times):
        """The points of `process` at times [N]."""
        return cls(jnp.asarray(times, jnp.float32), *process.alpha_sigma(times))

    def __getitem__(self, i):
        return jax.tree.map(lambda c: c[i], self)

    @property
    def half_log_snr(self):
        """log(alpha / sigma), the lambda of Lu et al. 2022."""
        return jnp.log(self.alpha) - jnp.log(self.sigma)

    def eps(self, x, x0):
        """The noise in x, were x_0 the image."""
        return (x - self.alpha * x0) / self.sigma


class Past(flax.struct.PyTreeNode):
    """What a multistep method remembers of the points before this one, the newest first.

    Attributes:
      x0: x0_hat at the last two points, [2, B, ...]; meaningless at points there were not.
      x: x at the last point, as it was left from, [B, ...].
    """

    x0: jax.Array
    x: jax.Array


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A step and what it needs.

    Attributes:
      step: (denoise, x, i, path, past, noise) -> (x at point i + 1, x at point i as the step left
        it for good, x0_hat at point i); noise is standard normal [B, ...].
      stochastic: whether the step uses its noise.
      evaluations: calls of the denoiser a step.
    """

    step: Callable
    stochastic: bool = False
    evaluations: int = 1


def ddim_step(denoise, x, i, path, past, noise, eta=0.0):
    """Song et al. 2021a, eq. 12 and 16: eta = 0 is deterministic (Euler's step), 1 is DDPM."""
    a, b = path[i], path[i + 1]
    x0 = denoise(x, a.t)
    std = eta * _posterior_std(a, b)
    direction = jnp.sqrt(jnp.maximum(b.sigma**2 - std**2, 0.0))
    return b.alpha * x0 + direction * a.eps(x, x0) + std * noise, x, x0


def ancestral_step(denoise, x, i, path, past, noise, variance="small"):
    """q(x_b | x_a, x_0 = x0_hat) (Ho et al. 2020, eq. 6-7), for any two points of any process.

    With variance "large" the noise is that of q(x_a | x_b), beta_t between neighbours.
    """
    a, b = path[i], path[i + 1]
    x0 = denoise(x, a.t)
    step_variance = _step_variance(a, b)
    mean = _ratio(a, b) * (b.sigma / a.sigma) ** 2 * x + b.alpha * step_variance / a.sigma**2 * x0
    std = _posterior_std(a, b) if variance == "small" else jnp.sqrt(step_variance)
    return mean + std * noise, x, x0


def _ratio(a, b):
    """alpha_{a|b}: what is left of x_b in x_a."""
    return a.alpha / b.alpha


def _step_variance(a, b):
    """Variance of q(x_a | x_b)."""
    return jnp.maximum(a.sigma**2 - (_ratio(a, b) * b.sigma) ** 2, 0.0)


def _posterior_std(a, b):
    """Standard deviation of q(x_b | x_a, x_0)."""
    return jnp.sqrt(_step_variance(a, b)) * b.sigma / a.sigma


def _line(a, b, x, x0):
    """The change of x along the straight line from a to b, as seen at a."""
    return (b.alpha - a.alpha) * x0 + (b.sigma - a.sigma) * a.eps(x, x0)


@dataclasses.dataclass(frozen=True)
class Churn:
    """Noise put back before a step (Karras et al. 2022, algorithm 2), by s = sigma / alpha.

    Attributes:
      amount: S_churn over all steps; 0 for none.
      s_min, s_max: where between (S_tmin, S_tmax).
      noise: S_noise.
    """

    amount: float = 0.0
    s_min: float = 0.0
    s_max: float = float("inf")
    noise: float = 1.0

    def __call__(self, process, path, i, x, noise):
        """Point i and x moved up to more noise."""
        a = path[i]
        s = a.sigma / a.alpha
        gamma = jnp.minimum(self.amount / path.t.shape[0], jnp.sqrt(2.0) - 1)
        gamma = jnp.where((s >= self.s_min) & (s <= self.s_max), gamma, 0.0)
        t = process.time_of_log_snr(-2 * jnp.log(s * (1 + gamma)))
        t = jnp.where((gamma > 0) & jnp.isfinite(t), t, a.t)
        hat = Path.of(process, t)
        added = jnp.maximum(hat.sigma**2 - (hat.alpha / a.alpha * a.sigma) ** 2, 0.0)
        added = jnp.where(a.alpha > 0, added, 0.0)
        ratio = jnp.where(a.alpha > 0, hat.alpha / a.alpha, 1.0)
        return hat, ratio * x + self.noise * jnp.sqrt(added) * noise


def euler_step(denoise, x, i, path, past, noise, churn=None):
    """First order. `churn` is a function (path, i, x, noise) -> (point, x), None for none."""
    a, b = path[i], path[i + 1]
    a, left = churn(path, i, x, noise) if churn else (a, x)
    x0 = denoise(left, a.t)
    return left + _line(a, b, left, x0), left, x0


def heun_step(denoise, x, i, path, past, noise, churn=None):
    """Second order (Karras et al. 2022, algorithms 1, 2): the mean of the slopes at both ends."""
    a, b = path[i], path[i + 1]
    a, left = churn(path, i, x, noise) if churn else (a, x)
    x0 = denoise(left, a.t)
    first = _line(a, b, left, x0)
    there = left + first

    def slope_there(there):
        x0_there = denoise(there, b.t)
        return (b.alpha - a.alpha) * x0_there + (b.sigma - a.sigma) * b.eps(there, x0_there)

    last = i == path.t.shape[0] - 1  # there is nowhere to go
    second = jax.lax.cond(last, lambda there: first, slope_there, there)
    return left + (first + second) / 2, left, x0


def _lambda_steps(path, i):
    """h to the next point in half-log-SNR, and r, the steps before (one and two back) over it."""
    before = [path[jnp.maximum(i - k, 0)].half_log_snr for k in (0, 1, 2)]
    h = path[i + 1].half_log_snr - before[0]
    r1, r2 = ((before[0] - b) / h for b in before[1:])
    return h, r1, r2


def _over(difference, r, there):
    """difference / r where there is a point to differ from; at the first points r is 0 or NaN."""
    usable = there & jnp.isfinite(r) & (r > 0)
    return jnp.where(usable, difference / jnp.where(usable, r, 1.0), 0.0)


def dpmpp_2m_step(denoise, x, i, path, past, noise):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): second order by the last evaluation."""
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    x0 = denoise(x, a.t)
    d = x0 + 0.5 * _over(x0 - past.x0[0], r, i > 0)
    return b.sigma / a.sigma * x - b.alpha * jnp.expm1(-h) * d, x, x0


def dpmpp_2m_sde_step(denoise, x, i, path, past, noise, eta=1.0):
    """SDE-DPM-Solver++(2M), midpoint form (Lu et al. 2022b, section 4.3); eta = 0 is the ODE."""
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    x0 = denoise(x, a.t)
    d = x0 + 0.5 * _over(x0 - past.x0[0], r, i > 0)
    x_next = b.sigma / a.sigma * jnp.exp(-eta * h) * x - b.alpha * jnp.expm1(-(1 + eta) * h) * d
    return x_next + b.sigma * jnp.sqrt(-jnp.expm1(-2 * eta * h)) * noise, x, x0


def unipc_step(denoise, x, i, path, past, noise):
    """UniPC-2, B_2(h), data prediction (Zhao et al. 2023): corrects a point once it is evaluated.

    One evaluation a step: that at the predicted point corrects it, and predicts the next.
    """
    x0 = denoise(x, path[i].t)
    left = jnp.where(i > 0, _unipc_corrected(x, x0, i, path, past), x)
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    d = x0 + 0.5 * _over(x0 - past.x0[0], r, i > 0)
    return b.sigma / a.sigma * left - b.alpha * jnp.expm1(-h) * d, left, x0


def _unipc_corrected(x, x0, i, path, past):
    """x at point i again, from where point i - 1 was left and x0_hat at points i - 2, i - 1, i."""
    last = jnp.maximum(i - 1, 0)
    a, b = path[last], path[jnp.maximum(i, 1)]
    h, r, _ = _lambda_steps(path, last)
    phi_1 = jnp.expm1(-h)
    b_1 = (phi_1 / -h - 1) / phi_1
    b_2 = 2 * ((phi_1 / -h - 1) / -h - 0.5) / phi_1
    older = (i > 1) & jnp.isfinite(r) & jnp.isfinite(h)
    rho_older = jnp.where(older, (b_1 - b_2) / (1 + jnp.where(older, r, 1.0)), 0.0)
    rho_newest = jnp.where(older, b_1 - rho_older, 0.5)
    slope = _over(past.x0[0] - past.x0[1], r, older)  # towards larger lambda
    d = past.x0[0] + rho_newest * (x0 - past.x0[0]) + rho_older * slope
    return b.sigma / a.sigma * past.x - b.alpha * phi_1 * d


def make_sampler(name, process, *, eta=0.0, variance="small", churn=Churn()):
    """A `Sampler` by name; each takes what it knows of the options.

    Args:
      name: in `SAMPLERS`.
      process: what churn is measured on.
      eta: of ddim and dpmpp_2m_sde.
      variance: of ancestral, "small" or "large".
      churn: of euler and heun.
    """
    return SAMPLERS[name](process, eta, variance, churn)


def _with_churn(step, evaluations):
    def make(process, eta, variance, churn):
        if churn.amount == 0:
            return Sampler(step, False, evaluations)
        bound = functools.partial(churn, process)
        return Sampler(functools.partial(step, churn=bound), True, evaluations)

    return make


# config.sample.sampler -> (process, eta, variance, churn) -> Sampler.
SAMPLERS = {
    "ancestral": lambda process, eta, variance, churn: Sampler(
        functools.partial(ancestral_step, variance=variance), True
    ),
    "ddim": lambda process, eta, variance, churn: Sampler(
        functools.partial(ddim_step, eta=eta), eta > 0
    ),
    "euler": _with_churn(euler_step, 1),
    "heun": _with_churn(heun_step, 2),
    "dpmpp_2m": lambda process, eta, variance, churn: Sampler(dpmpp_2m_step),
    "dpmpp_2m_sde": lambda process, eta, variance, churn: (
        Sampler(functools.partial(dpmpp_2m_sde_step, eta=eta), True)
        if eta > 0
        else Sampler(dpmpp_2m_step)
    ),
    "unipc": lambda process, eta, variance, churn: Sampler(unipc_step),
}


def sample(sampler, denoise, process, times, x, noise_at=None, denoise_last=True):
    """Walks `x` through `times`; one `lax.scan`, whatever the sampler.

    Args:
      sampler: a `Sampler`.
      denoise: (x [B, ...], t scalar) -> x0_hat [B, ...].
      process: a `Process`.
      times: [N], falling; rising to go from an image to its noise (deterministic samplers only).
      x: [B, ...] at times[0], `prior_std` times noise to draw new images.
      noise_at: i -> standard normal [B, ...], what step i may add; see `keyed_noise`.
      denoise_last: whether x0_hat at the last point is the result; otherwise x there is, and the
        last point is not evaluated.

    Returns:
      (the result [B, ...], x0_hat at every point but, without denoise_last, the last: [N, B, ...]).
    """
    if sampler.stochastic and noise_at is None:
        raise ValueError("a stochastic sampler needs noise")
    path = Path.of(process, times)

    def body(carry, i):
        x, past = carry
        noise = noise_at(i) if sampler.stochastic else jnp.zeros_like(x)
        x_next, left, x0 = sampler.step(denoise, x, i, path, past, noise)
        past = Past(jnp.stack([x0, past.x0[0]]), left)
        return (x_next.astype(x.dtype), past), x0

    # The last evaluation is a step too, from the last point to itself: in the loop, the denoiser is
    # compiled once.
    past = Past(jnp.zeros((2, *x.shape), x.dtype), x)
    steps = jnp.arange(path.t.shape[0] - (0 if denoise_last else 1))
    (x, _), x0s = jax.lax.scan(body, (x, past), steps)
    return (x0s[-1] if denoise_last else x), x0s


def keyed_noise(keys, shape):
    """i -> noise [B, *shape] of step i, row j from keys[j] alone."""

    def noise_at(i):
        return rng.normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i + 1), shape)

    return noise_at


def draw(sampler, denoise, process, times, keys, shape):
    """New images [B, *shape]; row j is drawn from keys[j]. Returns what `sample` does."""
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    x = process.prior_std * rng.normal(first, shape)
    return sample(sampler, denoise, process, times, x, keyed_noise(keys, shape))
