"""Samplers: from noise to images, in one compiled loop.

A sampler is a step function; `sample` runs the loop around it, keeps the history that multistep
methods need, draws noise, and after the last point returns the denoiser's x0_hat. A new sampler is
one function.

All of them walk over the points (alpha_i, sigma_i) of a `Path` and take no derivatives in time. The
probability-flow ODE maps one noise level to another in the same way for every process between the
two, so between points we may take the straight line

  dx = d alpha x0_hat + d sigma eps_hat,   eps_hat = (x - alpha x0_hat) / sigma.

With alpha = 1 and sigma = t these are the steps of Karras et al. 2022; with alpha = 1 - t and
sigma = t those of flow matching in t; Euler's is DDIM on any process.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

from genjax import rng
from genjax.diffusion.process import Denoiser, Process, Time
from genjax.typing import AnyArray, Array, Bool, Float, Int, Key

# --- Points, history, and what a sampler is -------------------------------------------------------


class Path(flax.struct.PyTreeNode):
    """The points that a sampler visits: arrays [N] for all of them, scalars for one.

    Attributes:
      t: times.
      alpha: the process's alpha at t.
      sigma: the process's sigma at t.
    """

    t: Float[Array, "*n"]
    alpha: Float[Array, "*n"]
    sigma: Float[Array, "*n"]

    @classmethod
    def of(cls, process: Process, times: Time) -> "Path":
        """Returns the points of a process at the given times."""
        return cls(jnp.asarray(times, jnp.float32), *process.alpha_sigma(times))

    def __getitem__(self, i: Int[Array, ""] | int) -> "Path":
        return jax.tree.map(lambda c: c[i], self)

    @property
    def half_log_snr(self) -> Float[Array, "..."]:
        """log(alpha / sigma), the lambda of Lu et al. 2022."""
        return jnp.log(self.alpha) - jnp.log(self.sigma)

    def eps(self, x: Float[Array, "b *shape"], x0: Float[Array, "b *shape"]) -> Float[Array, "..."]:
        """Returns the noise in x, given the image x_0."""
        return (x - self.alpha * x0) / self.sigma


class Past(flax.struct.PyTreeNode):
    """The history of a multistep method.

    Attributes:
      x0: x0_hat at the last two points, the newest first; 0 before the first point.
      x: x at the last point, after the step's own changes to it (correction, churn).
    """

    x0: Float[Array, "2 b *shape"]
    x: Float[Array, "b *shape"]


# x at the next point, x at this point, x0_hat at this point.
StepResult: TypeAlias = tuple[Float[Array, "b ..."], Float[Array, "b ..."], Float[Array, "b ..."]]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A step function and its properties.

    Attributes:
      step: (denoise, x, i, path, past, noise) -> (x at point i + 1, x at point i after the step's
        own changes to it, x0_hat at point i); noise is standard normal [B, ...].
      stochastic: whether the step uses its noise.
      evaluations: calls of the denoiser per step.
    """

    step: Callable[..., StepResult]
    stochastic: bool = False
    evaluations: int = 1


# --- Steps: DDIM and ancestral sampling -----------------------------------------------------------


def ddim_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
    eta: float | int = 0.0,
) -> StepResult:
    """Makes a step of DDIM (Song et al. 2021a, eq. 12 and 16).

    eta = 0 is deterministic, Euler's step; eta = 1 is DDPM.
    """
    a, b = path[i], path[i + 1]
    x0 = denoise(x, a.t)
    std = eta * _posterior_std(a, b)
    direction = jnp.sqrt(jnp.maximum(b.sigma**2 - std**2, 0.0))
    return b.alpha * x0 + direction * a.eps(x, x0) + std * noise, x, x0


def ancestral_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
    variance: str = "small",
) -> StepResult:
    """Samples from q(x_b | x_a, x_0 = x0_hat) (Ho et al. 2020, eq. 6-7).

    Works for any two points of any process. With variance "large" the noise has the variance of
    q(x_a | x_b), which is beta_t between neighbours.
    """
    a, b = path[i], path[i + 1]
    x0 = denoise(x, a.t)
    step_variance = _step_variance(a, b)
    mean = _ratio(a, b) * (b.sigma / a.sigma) ** 2 * x + b.alpha * step_variance / a.sigma**2 * x0
    std = _posterior_std(a, b) if variance == "small" else jnp.sqrt(step_variance)
    return mean + std * noise, x, x0


def _ratio(a: Path, b: Path) -> Float[Array, ""]:
    """Returns alpha_{a|b}, the factor of x_b in x_a."""
    return a.alpha / b.alpha


def _step_variance(a: Path, b: Path) -> Float[Array, ""]:
    """Returns the variance of q(x_a | x_b)."""
    return jnp.maximum(a.sigma**2 - (_ratio(a, b) * b.sigma) ** 2, 0.0)


def _posterior_std(a: Path, b: Path) -> Float[Array, ""]:
    """Returns the standard deviation of q(x_b | x_a, x_0)."""
    return jnp.sqrt(_step_variance(a, b)) * b.sigma / a.sigma


def _line(
    a: Path, b: Path, x: Float[Array, "b *shape"], x0: Float[Array, "b *shape"]
) -> Float[Array, "b *shape"]:
    """Returns the change of x along the straight line from a to b, with the slope at a."""
    return (b.alpha - a.alpha) * x0 + (b.sigma - a.sigma) * a.eps(x, x0)


# --- Steps: Euler and Heun, with churn ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Churn:
    """Noise added before a step (Karras et al. 2022, algorithm 2).

    Attributes:
      amount: S_churn, over all steps; 0 for none.
      s_min: the lowest s = sigma / alpha at which noise is added, S_tmin.
      s_max: the highest one, S_tmax.
      noise: S_noise.
    """

    amount: float | int = 0.0
    s_min: float | int = 0.0
    s_max: float | int = float("inf")
    noise: float | int = 1.0

    def __call__(
        self,
        process: Process,
        path: Path,
        i: Int[Array, ""] | int,
        x: Float[Array, "b *shape"],
        noise: Float[Array, "b *shape"],
    ) -> tuple[Path, Float[Array, "b *shape"]]:
        """Returns (point i, x) moved to a higher noise level."""
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


# A `Churn` of a process: (path, i, x, noise) -> (point, x).
BoundChurn: TypeAlias = Callable[..., tuple[Path, Float[Array, "b ..."]]]


def euler_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
    churn: BoundChurn | None = None,
) -> StepResult:
    """Makes a step of first order, optionally with churn before it."""
    a, b = path[i], path[i + 1]
    a, x = churn(path, i, x, noise) if churn else (a, x)
    x0 = denoise(x, a.t)
    return x + _line(a, b, x, x0), x, x0


def heun_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
    churn: BoundChurn | None = None,
) -> StepResult:
    """Makes a step of second order (Karras et al. 2022, algorithms 1 and 2).

    It averages the slopes at both ends. `churn` optionally adds noise before.
    """
    a, b = path[i], path[i + 1]
    a, x = churn(path, i, x, noise) if churn else (a, x)
    x0 = denoise(x, a.t)
    first = _line(a, b, x, x0)
    x_next = x + first

    def change_at_next(x_next):
        x0_next = denoise(x_next, b.t)
        return (b.alpha - a.alpha) * x0_next + (b.sigma - a.sigma) * b.eps(x_next, x0_next)

    last = i == path.t.shape[0] - 1  # there is no next point
    second = jax.lax.cond(last, lambda x_next: first, change_at_next, x_next)
    return x + (first + second) / 2, x, x0


# --- Steps: multistep methods ---------------------------------------------------------------------


def _lambda_steps(
    path: Path, i: Int[Array, ""] | int
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Returns (h, r_1, r_2), steps in half-log-SNR.

    h is the one to the next point; r_1 and r_2 are the distances of the last two points, over h.
    """
    before = [path[jnp.maximum(i - k, 0)].half_log_snr for k in (0, 1, 2)]
    h = path[i + 1].half_log_snr - before[0]
    r1, r2 = ((before[0] - b) / h for b in before[1:])
    return h, r1, r2


def _slope(
    difference: Float[Array, "b *shape"], r: Float[Array, ""], exists: Bool[Array, ""]
) -> Float[Array, "b *shape"]:
    """Returns difference / r where an earlier point exists; at the first points r is 0 or NaN."""
    usable = exists & jnp.isfinite(r) & (r > 0)
    return jnp.where(usable, difference / jnp.where(usable, r, 1.0), 0.0)


def dpmpp_2m_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
) -> StepResult:
    """Makes a step of DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2).

    Second order, by the last evaluation.
    """
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    x0 = denoise(x, a.t)
    d = x0 + 0.5 * _slope(x0 - past.x0[0], r, i > 0)
    return b.sigma / a.sigma * x - b.alpha * jnp.expm1(-h) * d, x, x0


def dpmpp_2m_sde_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
    eta: float | int = 1.0,
) -> StepResult:
    """Makes a step of SDE-DPM-Solver++(2M), midpoint form (Lu et al. 2022b, section 4.3).

    eta = 0 is the ODE.
    """
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    x0 = denoise(x, a.t)
    d = x0 + 0.5 * _slope(x0 - past.x0[0], r, i > 0)
    x_next = b.sigma / a.sigma * jnp.exp(-eta * h) * x - b.alpha * jnp.expm1(-(1 + eta) * h) * d
    return x_next + b.sigma * jnp.sqrt(-jnp.expm1(-2 * eta * h)) * noise, x, x0


def unipc_step(
    denoise: Denoiser,
    x: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
    noise: Float[Array, "b *shape"],
) -> StepResult:
    """Makes a step of UniPC-2, B_2(h), data prediction (Zhao et al. 2023).

    One evaluation per step: the one at the predicted point serves to correct that point and to
    predict the next one.
    """
    x0 = denoise(x, path[i].t)
    corrected = jnp.where(i > 0, _unipc_corrected(x, x0, i, path, past), x)
    a, b = path[i], path[i + 1]
    h, r, _ = _lambda_steps(path, i)
    d = x0 + 0.5 * _slope(x0 - past.x0[0], r, i > 0)
    return b.sigma / a.sigma * corrected - b.alpha * jnp.expm1(-h) * d, corrected, x0


def _unipc_corrected(
    x: Float[Array, "b *shape"],
    x0: Float[Array, "b *shape"],
    i: Int[Array, ""] | int,
    path: Path,
    past: Past,
) -> Float[Array, "b *shape"]:
    """Computes x at point i again, from x at point i - 1 and x0_hat at points i - 2, i - 1, i."""
    last = jnp.maximum(i - 1, 0)
    a, b = path[last], path[jnp.maximum(i, 1)]
    h, r, _ = _lambda_steps(path, last)
    phi_1 = jnp.expm1(-h)
    b_1 = (phi_1 / -h - 1) / phi_1
    b_2 = 2 * ((phi_1 / -h - 1) / -h - 0.5) / phi_1
    older = (i > 1) & jnp.isfinite(r) & jnp.isfinite(h)
    rho_older = jnp.where(older, (b_1 - b_2) / (1 + jnp.where(older, r, 1.0)), 0.0)
    rho_newest = jnp.where(older, b_1 - rho_older, 0.5)
    slope = _slope(past.x0[0] - past.x0[1], r, older)  # towards larger lambda
    d = past.x0[0] + rho_newest * (x0 - past.x0[0]) + rho_older * slope
    return b.sigma / a.sigma * past.x - b.alpha * phi_1 * d


# --- Samplers by name -----------------------------------------------------------------------------


def make_sampler(
    name: str,
    process: Process,
    *,
    eta: float | int = 0.0,
    variance: str = "small",
    churn: Churn = Churn(),
) -> Sampler:
    """Returns a sampler by name; options that it does not have are ignored.

    Args:
      name: a key of `SAMPLERS`.
      process: the diffusion process.
      eta: of ddim and dpmpp_2m_sde.
      variance: of ancestral, "small" or "large".
      churn: of euler and heun.
    """
    return SAMPLERS[name](process, eta, variance, churn)


def _with_churn(
    step: Callable[..., StepResult], evaluations: int
) -> Callable[[Process, float | int, str, Churn], Sampler]:
    def make(process, eta, variance, churn):
        if churn.amount == 0:
            return Sampler(step, False, evaluations)
        bound = functools.partial(churn, process)
        return Sampler(functools.partial(step, churn=bound), True, evaluations)

    return make


# config.sample.sampler -> (process, eta, variance, churn) -> Sampler.
SAMPLERS: dict[str, Callable[[Process, float | int, str, Churn], Sampler]] = {
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


# --- The loop -------------------------------------------------------------------------------------


def sample(
    sampler: Sampler,
    denoise: Denoiser,
    process: Process,
    times: Float[AnyArray, " n"],
    x: Float[Array, "b *shape"],
    noise_at: Callable[[Int[Array, ""]], Float[Array, "b *shape"]] | None = None,
    denoise_last: bool = True,
) -> tuple[Float[Array, "b *shape"], Float[Array, "points b *shape"]]:
    """Moves `x` from times[0] to times[-1] and denoises it.

    Args:
      sampler: the sampler.
      denoise: the denoiser; here t is a scalar.
      process: the diffusion process.
      times: falling; rising to map images to noise, with deterministic samplers only.
      x: at times[0]; `process.prior_std` times standard normal noise for new images.
      noise_at: i -> standard normal [B, ...], the noise that step i may add, see `keyed_noise`.
      denoise_last: whether to return x0_hat at the last time; otherwise x there is returned, and
        the denoiser is not evaluated at the last time.

    Returns:
      (the result, x0_hat at all times at which the denoiser was evaluated).
    """
    if sampler.stochastic and noise_at is None:
        raise ValueError("a stochastic sampler needs noise_at")
    path = Path.of(process, times)

    def body(carry, i):
        x, past = carry
        noise = noise_at(i) if sampler.stochastic else jnp.zeros_like(x)
        x_next, x_now, x0 = sampler.step(denoise, x, i, path, past, noise)
        past = Past(jnp.stack([x0, past.x0[0]]), x_now)
        return (x_next.astype(x.dtype), past), x0

    # The last evaluation is a step too, from the last point to itself: inside the loop, so that the
    # denoiser is compiled once.
    past = Past(jnp.zeros((2, *x.shape), x.dtype), x)
    steps = jnp.arange(path.t.shape[0] - (0 if denoise_last else 1))
    (x, past), x0s = jax.lax.scan(body, (x, past), steps)
    # Not x0s[-1], which would keep the x0_hat of all steps where only the result is wanted.
    return (past.x0[0] if denoise_last else x), x0s


def keyed_noise(
    keys: Key[Array, " b"], shape: tuple[int, ...]
) -> Callable[[Int[Array, ""]], Float[Array, "b ..."]]:
    """Returns i -> the noise [B, *shape] of step i; row j depends on keys[j] alone."""

    def noise_at(i):
        return rng.normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i + 1), shape)

    return noise_at


def draw(
    sampler: Sampler,
    denoise: Denoiser,
    process: Process,
    times: Float[AnyArray, " n"],
    keys: Key[Array, " b"],
    shape: tuple[int, ...],
) -> tuple[Float[Array, "b ..."], Float[Array, "points b ..."]]:
    """Draws new images [B, *shape]; row j depends on keys[j] alone.

    Returns:
      The same as `sample`.
    """
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    x = process.prior_std * rng.normal(first, shape)
    return sample(sampler, denoise, process, times, x, keyed_noise(keys, shape))
