"""Compares `genjax.diffusion` and the DDPM U-Net with diffusers: same model outputs, same weights.

Full sampling trajectories of 20 steps with one invented model and, for stochastic samplers, one
sequence of noises; the noise levels themselves; and the CIFAR-10 U-Net at random weights. Prints a
table; exit code 1 when a difference is out of tolerance.

pip install diffusers torch, in any Python that has this project's packages too
python -m benchmarks.diffusers_reference
"""

import functools
import importlib.metadata
import itertools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch

from genjax.diffusion.process import Process, ddpm_cosine, ddpm_linear, edm, flow
from genjax.diffusion.samplers import make_sampler, sample
from genjax.diffusion.schedules import karras, linear
from genjax.weights.unet import from_diffusers, to_diffusers

STEPS, SHAPE, TOLERANCE = 20, (4, 8, 8, 3), 1e-4
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
LINEAR |= {"beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon"}
RNG = np.random.default_rng(0)
START = RNG.normal(size=SHAPE).astype(np.float32)
NOISES = RNG.normal(size=(STEPS, *SHAPE)).astype(np.float32)
UNET = dict(
    sample_size=32,
    block_out_channels=(128, 256, 256, 256),
    layers_per_block=2,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=None,
    norm_eps=1e-6,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
)

Row = tuple[str, Any, Any]  # what is compared, their arrays, our arrays


# ---- One trajectory, by each ----


def model(x: Any, alpha: Any, sigma: Any, np_like: ModuleType) -> Any:
    """Returns the eps of an invented image in [-1, 1], not linear and different at each level."""
    spread = (alpha**2 + sigma**2) ** 0.5
    x0 = 0.7 * np_like.tanh(1.5 * x / spread) * alpha / spread + 0.2
    return (x - alpha * x0) / sigma


def theirs(
    scheduler: Any,
    level_at: Callable[[Any, Any], tuple[float, ...]],
    start: np.ndarray,
    output: Callable[..., Any] = model,
    noisy: str = "",
) -> np.ndarray:
    """Returns the end of diffusers' trajectory.

    Args:
      scheduler: with its time steps set.
      level_at: (scheduler, time step) -> the arguments of `output` between x and the library.
      start: x at the first time step.
      output: (x, *level, library) -> what the network predicts.
      noisy: "argument" where the noise is an argument of the scheduler's step.
    """
    x = torch.from_numpy(start)
    for count, t in enumerate(scheduler.timesteps):
        out = output(x, *level_at(scheduler, t), torch)
        noise = torch.from_numpy(NOISES[min(count, STEPS - 1)])
        options = {"variance_noise": noise} if noisy == "argument" else {}
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: noise):  # noqa: B023
            x = scheduler.step(out, t, x, **options).prev_sample
    return x.numpy()


def ours(name: str, process: Process, times: Any, start: np.ndarray, **options: Any) -> np.ndarray:
    """Returns the end of our trajectory; `options` are those of the sampler."""

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        return (x - sigma * model(x, alpha, sigma, jnp)) / alpha

    sampler = make_sampler(name, process, **options)
    noises = jnp.asarray(NOISES)
    run = jax.jit(lambda x: sample(sampler, denoise, process, times, x, lambda i: noises[i])[0])
    return np.asarray(run(jnp.asarray(start)))


def discrete_level(scheduler: Any, t: Any) -> tuple[float, float]:
    """Returns (alpha, sigma) of a scheduler with `alphas_cumprod`."""
    bar = float(scheduler.alphas_cumprod[int(t)])
    return bar**0.5, (1 - bar) ** 0.5


def sigma_level(scheduler: Any, t: Any) -> tuple[float, float]:
    """Returns (alpha, sigma) of a scheduler with `sigmas`."""
    if scheduler.step_index is None:
        scheduler._init_step_index(t)
    return 1.0, float(scheduler.sigmas[scheduler.step_index])


# ---- What is compared ----


def ancestral_rows() -> Iterator[Row]:
    """Compares DDPM and DDIM."""
    process = ddpm_linear()
    spaced = dict(LINEAR, timestep_spacing="leading", clip_sample=False)
    their = diffusers.DDPMScheduler(**spaced, variance_type="fixed_small")
    their.set_timesteps(STEPS)
    times = jnp.asarray(their.timesteps.numpy() + 1.0)
    yield "DDPM", theirs(their, discrete_level, START), ours("ancestral", process, times, START)
    for eta in (0.0, 0.7):
        their = diffusers.DDIMScheduler(**spaced, set_alpha_to_one=True)
        their.set_timesteps(STEPS)
        their.step = functools.partial(their.step, eta=eta)
        out = theirs(their, discrete_level, START, noisy="argument" if eta else "")
        yield f"DDIM, eta {eta}", out, ours("ddim", process, times, START, eta=eta)


def karras_rows() -> Iterator[Row]:
    """Compares Karras's noise levels, and Euler's and Heun's steps at them."""
    process, exploding = ddpm_linear(), edm(1e-4, 1e4)
    for kind, name in (
        (diffusers.EulerDiscreteScheduler, "euler"),
        (diffusers.HeunDiscreteScheduler, "heun"),
    ):
        their = kind(**LINEAR, use_karras_sigmas=True)
        their.set_timesteps(STEPS)
        their.is_scale_input_called = True  # the model takes x as it is
        sigmas = np.unique(their.sigmas.numpy())[::-1][:-1].copy()
        alpha, sigma = process.alpha_sigma(karras(process, STEPS))
        yield f"Karras's noise levels, {name}", np.ones(STEPS), sigma / alpha / sigmas
        start = START * sigmas[0]
        out = theirs(their, sigma_level, start)
        yield name.capitalize(), out, ours(name, exploding, jnp.asarray(sigmas), start)


def multistep_rows() -> Iterator[Row]:
    """Compares the multistep samplers."""
    process = ddpm_linear()
    solver = dict(LINEAR, timestep_spacing="linspace", final_sigmas_type="zero", solver_order=2)
    multistep = diffusers.DPMSolverMultistepScheduler
    sde = functools.partial(multistep, algorithm_type="sde-dpmsolver++")
    for label, make, name, noisy, eta in (
        ("DPM-Solver++(2M)", multistep, "dpmpp_2m", "", 0.0),
        ("SDE-DPM-Solver++(2M)", sde, "dpmpp_2m_sde", "argument", 1.0),
        ("UniPC-2", diffusers.UniPCMultistepScheduler, "unipc", "", 0.0),
    ):
        their = make(**solver)
        their.set_timesteps(STEPS)
        times = jnp.asarray(their.timesteps.numpy() + 1.0)
        out = theirs(their, discrete_level, START, noisy=noisy)
        yield label, out, ours(name, process, times, START, eta=eta)


def flow_rows() -> Iterator[Row]:
    """Compares Euler's steps of flow matching."""
    their = diffusers.FlowMatchEulerDiscreteScheduler()
    their.set_timesteps(STEPS)
    times = jnp.asarray(their.sigmas.numpy()[:-1])
    velocity = lambda x, t, np_like: 0.8 * np_like.tanh(1.1 * x) + 0.1 * x * t
    denoise = lambda x, t: x - t * velocity(x, t, jnp)  # x0_hat
    sampler = make_sampler("euler", flow())
    out = sample(sampler, denoise, flow(), times, jnp.asarray(START))[0]
    level = lambda scheduler, t: (float(t) / 1000,)
    yield "Euler, flow matching", theirs(their, level, START, velocity), np.asarray(out)


def schedule_rows() -> Iterator[Row]:
    """Compares noise levels and times."""
    for label, name, make in (
        ("linear", "linear", ddpm_linear),
        ("cosine", "squaredcos_cap_v2", ddpm_cosine),
    ):
        bar = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod.numpy()
        alpha, _ = make().alpha_sigma(np.arange(1, 1001))
        yield f"alpha_bar, {label}", bar, np.asarray(alpha) ** 2
    their = diffusers.DDPMScheduler(**LINEAR, timestep_spacing="linspace")
    their.set_timesteps(STEPS)
    yield "times, linear", their.timesteps.numpy() + 1.0, linear(ddpm_linear(), STEPS)


def unet_rows() -> Iterator[Row]:
    """Compares the CIFAR-10 U-Net of DDPM at random weights, and its weights there and back."""
    torch.manual_seed(0)
    their = diffusers.UNet2DModel(**UNET).eval()
    arrays = {name: value.numpy() for name, value in their.state_dict().items()}
    network, params = from_diffusers(arrays, 32)
    x = RNG.normal(size=(2, 3, 32, 32)).astype(np.float32)
    t = np.asarray([3, 800])
    with torch.no_grad():
        out = their(torch.from_numpy(x), torch.from_numpy(t)).sample.numpy()
    apply = jax.jit(lambda x, t: network.apply({"params": params}, x, t))
    mine = apply(x.transpose(0, 2, 3, 1), t.astype(np.float32))
    count = sum(a.size for a in arrays.values())
    yield f"U-Net, {count:,} parameters", out.transpose(0, 2, 3, 1), mine
    back = to_diffusers(network, params)
    same = all((back[name] == array).all() for name, array in arrays.items())
    yield "U-Net, weights there and back", np.zeros(1), np.zeros(1) if same else np.ones(1)


ROWS = (ancestral_rows, karras_rows, multistep_rows, flow_rows, schedule_rows, unet_rows)


def main() -> None:
    """Prints the table; exits with 1 where a difference is out of tolerance."""
    print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("diffusers", "torch", "jax")))
    failed = False
    for what, their, mine in itertools.chain.from_iterable(rows() for rows in ROWS):
        difference = float(np.abs(np.asarray(their) - np.asarray(mine)).max())
        bad = not difference < TOLERANCE
        failed |= bad
        print(f"{what:32} {difference:.1e}{' OUT' if bad else ''}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
