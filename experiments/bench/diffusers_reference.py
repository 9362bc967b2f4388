"""`genjax.diffusion` and the DDPM U-Net against diffusers: same model outputs, same weights.

Whole sampling trajectories of 20 steps with one made-up model and, for stochastic samplers, one
sequence of noises; the noise levels themselves; and the CIFAR-10 U-Net at random weights. Prints a
table; exit code 1 when a difference is out of tolerance.

pip install diffusers torch, in any Python that has this project's packages too
python -m experiments.bench.diffusers_reference
"""

import functools
import importlib.metadata
import sys
from unittest import mock

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch

from genjax.diffusion.process import ddpm_cosine, ddpm_linear, edm, flow
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


def model(x, alpha, sigma, np_like):
    """Some eps, that of an image in [-1, 1], not linear and different at each noise level."""
    spread = (alpha**2 + sigma**2) ** 0.5
    x0 = 0.7 * np_like.tanh(1.5 * x / spread) * alpha / spread + 0.2
    return (x - alpha * x0) / sigma


def theirs(scheduler, level_at, start, output=model, noisy=""):
    """Where they arrive; level_at: (scheduler, t) -> level, noisy: how noise gets in."""
    x = torch.from_numpy(start)
    for count, t in enumerate(scheduler.timesteps):
        out = output(x, *level_at(scheduler, t), torch)
        noise = torch.from_numpy(NOISES[min(count, STEPS - 1)])
        options = {"variance_noise": noise} if noisy == "argument" else {}
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: noise):  # noqa: B023
            x = scheduler.step(out, t, x, **options).prev_sample
    return x.numpy()


def ours(name, process, times, start, **options):
    """Where we arrive."""

    def denoise(x, t):
        alpha, sigma = process.alpha_sigma(t)
        return (x - sigma * model(x, alpha, sigma, jnp)) / alpha

    made = make_sampler(name, process, **options)
    noises = jnp.asarray(NOISES)
    run = jax.jit(lambda x: sample(made, denoise, process, times, x, lambda i: noises[i])[0])
    return np.asarray(run(jnp.asarray(start)))


def discrete_level(scheduler, t):
    bar = float(scheduler.alphas_cumprod[int(t)])
    return bar**0.5, (1 - bar) ** 0.5


def sigma_level(scheduler, t):
    if scheduler.step_index is None:
        scheduler._init_step_index(t)
    return 1.0, float(scheduler.sigmas[scheduler.step_index])


def trajectories():
    """(what, theirs, ours)."""
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

    exploding = edm(1e-4, 1e4)
    for kind, name in (
        (diffusers.EulerDiscreteScheduler, "euler"),
        (diffusers.HeunDiscreteScheduler, "heun"),
    ):
        their = kind(**LINEAR, use_karras_sigmas=True)
        their.set_timesteps(STEPS)
        their.is_scale_input_called = True  # the model is asked about x as it is
        sigmas = np.unique(their.sigmas.numpy())[::-1][:-1].copy()
        alpha, sigma = process.alpha_sigma(karras(process, STEPS))
        yield f"Karras's noise levels, {name}", np.ones(STEPS), sigma / alpha / sigmas
        start = START * sigmas[0]
        out = theirs(their, sigma_level, start)
        yield name.capitalize(), out, ours(name, exploding, jnp.asarray(sigmas), start)

    solver = dict(LINEAR, timestep_spacing="linspace", final_sigmas_type="zero", solver_order=2)
    multistep = diffusers.DPMSolverMultistepScheduler
    sde = {"algorithm_type": "sde-dpmsolver++"}
    for label, make, name, noisy, eta in (
        ("DPM-Solver++(2M)", multistep, "dpmpp_2m", "", 0.0),
        (
            "SDE-DPM-Solver++(2M)",
            functools.partial(multistep, **sde),
            "dpmpp_2m_sde",
            "argument",
            1.0,
        ),
        ("UniPC-2", diffusers.UniPCMultistepScheduler, "unipc", "", 0.0),
    ):
        their = make(**solver)
        their.set_timesteps(STEPS)
        times = jnp.asarray(their.timesteps.numpy() + 1.0)
        out = theirs(their, discrete_level, START, noisy=noisy)
        yield label, out, ours(name, process, times, START, eta=eta)

    their = diffusers.FlowMatchEulerDiscreteScheduler()
    their.set_timesteps(STEPS)
    times = jnp.asarray(their.sigmas.numpy()[:-1])
    curl = lambda x, t, np_like: 0.8 * np_like.tanh(1.1 * x) + 0.1 * x * t  # some velocity
    # Of ours, written as a denoiser, x - t v is x0_hat.
    denoise = lambda x, t: x - t * curl(x, t, jnp)
    made = make_sampler("euler", flow())
    out = sample(made, denoise, flow(), times, jnp.asarray(START))[0]
    level = lambda scheduler, t: (float(t) / 1000,)
    yield "Euler, flow matching", theirs(their, level, START, curl), np.asarray(out)

    for label, name, make in (
        ("linear", "linear", ddpm_linear),
        ("cosine", "squaredcos_cap_v2", ddpm_cosine),
    ):
        bar = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod.numpy()
        alpha, _ = make().alpha_sigma(np.arange(1, 1001))
        yield f"alpha_bar, {label}", bar, np.asarray(alpha) ** 2
    their = diffusers.DDPMScheduler(**LINEAR, timestep_spacing="linspace")
    their.set_timesteps(STEPS)
    yield "times, linear", their.timesteps.numpy() + 1.0, linear(process, STEPS)


def unet():
    """The CIFAR-10 U-Net of DDPM at random weights, and its weights there and back."""
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


def main():
    print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("diffusers", "torch", "jax")))
    failed = False
    for rows in (trajectories(), unet()):
        for what, their, mine in rows:
            difference = float(np.abs(np.asarray(their) - np.asarray(mine)).max())
            bad = not difference < TOLERANCE
            failed |= bad
            print(f"{what:32} {difference:.1e}{' OUT' if bad else ''}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
