"""Error of every sampler for several numbers of steps, on data with a known answer.

For Gaussian data the optimal denoiser is linear and the probability-flow ODE has a closed form; a
stochastic sampler is then a linear map of the noise that it draws, whose mean and variance are
computed exactly, in float64 but for the times, which are float32 everywhere. Prints a table with
the order of convergence, and with --out draws it.

python -m benchmarks.sampler_order [--out orders.png]
"""

import argparse
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genjax import plots
from genjax.diffusion.process import PROCESSES, Process
from genjax.diffusion.samplers import Churn, make_sampler, sample

MEAN, STD = 0.3, 0.6
ODE = ("euler", "ddim", "heun", "dpmpp_2m", "unipc")
STOCHASTIC = ("ancestral", "ddim_eta1", "dpmpp_2m_sde")
OPTIONS = {"ddim_eta1": ("ddim", {"eta": 1.0}), "dpmpp_2m_sde": ("dpmpp_2m_sde", {"eta": 1.0})}
OPTIONS["heun_churn"] = ("heun", {"churn": Churn(20.0)})
STEPS = (8, 16, 32, 64, 128, 256)
SPAN = (4.0, -4.0)  # log-SNR, from the last point to the first


def denoiser(process: Process) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns E[x_0 | x_t] of N(MEAN, STD^2), a function of x_t and t."""

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        return MEAN + alpha * STD**2 * (x - alpha * MEAN) / ((alpha * STD) ** 2 + sigma**2)

    return denoise


def _times(process, steps):
    return process.time_of_log_snr(jnp.linspace(SPAN[1], SPAN[0], steps + 1))


def _moments(process, t):
    alpha, sigma = process.alpha_sigma(t)
    return alpha * MEAN, jnp.sqrt((alpha * STD) ** 2 + sigma**2)


def ode_error(name: str, process: Process, steps: int) -> float:
    """Computes |x - exact x| at the last time, from one deviation off the mean at the first."""
    with jax.enable_x64(True):
        times = _times(process, steps)
        (mean, std), (mean_end, std_end) = (_moments(process, t) for t in (times[0], times[-1]))
        x = jnp.reshape(mean + std, (1, 1))
        sampler = make_sampler(name, process)
        out, _ = sample(sampler, denoiser(process), process, times, x, denoise_last=False)
        return abs(float(out[0, 0] - (mean_end + std_end)))


def distribution_error(name: str, process: Process, steps: int) -> float:
    """Computes |mean - exact mean| + |deviation - exact deviation| of x at the last time."""
    base, options = OPTIONS.get(name, (name, {}))
    with jax.enable_x64(True):
        times = _times(process, steps)
        (mean, std), (mean_end, std_end) = (_moments(process, t) for t in (times[0], times[-1]))
        # Row 0 is without noise; row 1 is one deviation off; row 2 + i has noise in step i alone.
        rows = jnp.arange(steps + 2)
        x = mean + jnp.where(rows == 1, std, 0.0)[:, None]
        noise_at = lambda i: jnp.where(rows == i + 2, 1.0, 0.0)[:, None]
        sampler = make_sampler(base, process, **options)
        out, _ = sample(sampler, denoiser(process), process, times, x, noise_at, denoise_last=False)
        out = np.asarray(out[:, 0])
        deviation = np.sqrt(np.sum((out[1:] - out[0]) ** 2))
        return float(abs(out[0] - mean_end) + abs(deviation - std_end))


def order_of(errors: Sequence[float]) -> float:
    """Returns the order of convergence of errors at doubling numbers of steps, by the last two."""
    return float(np.log2(errors[-2] / errors[-1]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="a .png for a diagram of the table")
    out = parser.parse_args().out
    print(f"steps                     {''.join(f'{n:>10}' for n in STEPS)}   order")
    series = {}
    for process in ("vp", "edm", "flow"):
        for name in (*ODE, *STOCHASTIC, "heun_churn"):
            error = ode_error if name in ODE else distribution_error
            errors = [error(name, PROCESSES[process](), n) for n in STEPS]
            series.setdefault(process, {})[name] = errors
            numbers = "".join(f"{e:10.2e}" for e in errors)
            print(f"{process:8}{name:18}{numbers}   {order_of(errors):5.2f}", flush=True)
    if out:
        plots.save_png(out, plots.log_log(STEPS, series, "steps", "error"), {"command": __doc__})


if __name__ == "__main__":
    main()
