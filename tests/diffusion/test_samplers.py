"""Every sampler against the exact answer for Gaussian data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.sampler_order import STOCHASTIC, distribution_error, ode_error, order_of
from genjax.diffusion import editing, guidance
from genjax.diffusion.samplers import (
    SAMPLERS,
    Churn,
    Sampler,
    draw,
    heun_step,
    make_sampler,
    sample,
)
from genjax.diffusion.schedules import SCHEDULES, karras, linear, log_snr
from tests.diffusion.gaussian import CASES, MEAN, STD, denoiser, moments_at

ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 2}


@pytest.mark.parametrize("process", ["vp", "edm", "flow"])
@pytest.mark.parametrize("name", ORDERS)
def test_ode_samplers_converge_at_their_order(name, process):
    errors = [ode_error(name, CASES[process], n) for n in (16, 32, 64)]
    assert errors[-1] < errors[0]
    assert order_of(errors) > ORDERS[name] - 0.25


@pytest.mark.parametrize("name", STOCHASTIC)
def test_sde_samplers_converge_in_mean_and_variance(name):
    errors = [distribution_error(name, CASES["vp"], n) for n in (32, 64, 128)]
    assert order_of(errors) > 0.75
    assert errors[-1] < 0.03


def test_heun_is_exact_on_a_slope_linear_in_time():
    process = CASES["flow"]
    # With x0_hat = x - t (2 t) the slope is dx/dt = eps_hat - x0_hat = 2 t.
    denoise = lambda x, t: x - t * 2 * t
    times = jnp.asarray([1.0, 0.7, 0.35, 0.1])
    x, _ = sample(Sampler(heun_step), denoise, process, times, jnp.ones((1, 2)), denoise_last=False)
    np.testing.assert_allclose(x, 1 + 0.1**2 - 1.0, atol=1e-6)


def test_every_sampler_is_exact_where_the_image_is_known():
    image = jnp.linspace(-1, 1, 6).reshape(1, 6)
    for name in ("ddpm_linear", "ve", "flow"):
        process = CASES[name]
        times = linear(process, 5)
        keys = jax.random.split(jax.random.key(0), 1)
        for sampler in ("ancestral", "heun", "dpmpp_2m_sde", "unipc"):
            made = make_sampler(sampler, process, eta=1.0, churn=Churn(2.0))
            out, x0s = draw(made, lambda x, t: image + 0 * x, process, times, keys, (6,))
            np.testing.assert_allclose(out, image, rtol=1e-6, err_msg=f"{sampler} {name}")
            assert x0s.shape == (5, 1, 6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_i_does_not_depend_on_the_batch(name):
    process = CASES["edm"]
    times = karras(process, 6)
    sampler = make_sampler(name, process, eta=0.5, churn=Churn(10.0))
    keys = jax.random.split(jax.random.key(1), 5)
    run = jax.jit(lambda keys: draw(sampler, denoiser(process), process, times, keys, (3,))[0])
    batch = run(keys)
    np.testing.assert_allclose(run(keys[3:4]), batch[3:4], rtol=1e-5)
    assert len({float(v) for v in batch[:, 0]}) == 5


def test_ddim_with_eta_1_is_ancestral():
    process = CASES["ddpm_linear"]
    times = linear(process, 20)
    keys = jax.random.split(jax.random.key(2), 3)
    run = lambda sampler: draw(sampler, denoiser(process), process, times, keys, (4,))[0]
    a = run(make_sampler("ancestral", process))
    b = run(make_sampler("ddim", process, eta=1.0))
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_ancestral_is_the_posterior_of_the_paper():
    process = CASES["ddpm_linear"]
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    t, x, x0 = 500, 0.8, -0.4  # time t of the paper is betas[t - 1]
    beta, bar_t, bar_s = betas[t - 1], bar[t - 1], bar[t - 2]
    mean = np.sqrt(bar_s) * beta / (1 - bar_t) * x0
    mean += np.sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x
    variance = {"small": (1 - bar_s) / (1 - bar_t) * beta, "large": beta}
    for kind in variance:
        sampler = make_sampler("ancestral", process, variance=kind)
        step = functools.partial(
            sample,
            sampler,
            lambda x, t: jnp.full_like(x, x0),
            process,
            jnp.asarray([500.0, 499.0]),
            jnp.full((1, 1), x),
            denoise_last=False,
        )
        centre = step(lambda i: jnp.zeros((1, 1)))[0]
        up = step(lambda i: jnp.ones((1, 1)))[0]
        np.testing.assert_allclose(centre, mean, rtol=1e-4)
        np.testing.assert_allclose((up - centre) ** 2, variance[kind], rtol=1e-2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_fall_from_end_to_end(schedule):
    for name, process in CASES.items():
        times = np.asarray(SCHEDULES[schedule](process, 12))
        assert times.shape == (12,) and (np.diff(times) < 0).all(), name
        np.testing.assert_allclose(times[[0, -1]], [process.t_max, process.t_min], rtol=1e-6)
        assert SCHEDULES[schedule](process, 1) == process.t_max


def test_karras_is_equation_5():
    i, n, rho = np.arange(18), 18, 7
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(karras(CASES["edm"], 18), expected, rtol=1e-4)
    np.testing.assert_allclose(
        np.diff(np.log(log_snr(CASES["edm"], 9))), np.log(0.002 / 80) / 8, rtol=1e-4
    )


def test_guidance_extrapolates_inside_of_its_interval():
    process = CASES["edm"]
    strong, weak = (lambda x, t: 2.0 + 0 * x), (lambda x, t: 1.0 + 0 * x)
    combined = guidance.guided(strong, weak, process, 3.0, (0.5, 2.0))
    for t, expected in ((0.4, 2.0), (1.0, 4.0), (3.0, 2.0)):
        assert combined(jnp.zeros((1, 1)), jnp.float32(t)) == expected
    assert guidance.guided(strong, weak, process, 1.0) is strong


def test_inpainting_keeps_what_is_known_and_invents_the_rest():
    process = CASES["edm"]
    known, mask = jnp.full((3, 4), 0.25), jnp.asarray([1.0, 0, 0, 1])[None].repeat(3, 0)
    denoise = guidance.inpainting(denoiser(process), known, mask)
    keys = jax.random.split(jax.random.key(3), 3)
    for name in ("heun", "ancestral"):
        sampler = make_sampler(name, process)
        out, _ = draw(sampler, denoise, process, karras(process, 12), keys, (4,))
        np.testing.assert_array_equal(out[:, ::3], 0.25)
        assert np.std(out[:, 1:3]) > 0.1


def test_inversion_is_undone_by_sampling():
    process = CASES["vp"]
    images = jnp.asarray(np.random.default_rng(1).normal(MEAN, STD, (4, 6)), jnp.float32)
    times = log_snr(process, 80)
    noise = editing.invert(denoiser(process), process, times, images)
    assert abs(float(jnp.std(noise)) - 1) < 0.4
    back, _ = sample(Sampler(heun_step), denoiser(process), process, times, noise)
    np.testing.assert_allclose(back, images, atol=0.02)


def test_sdedit_from_little_noise_stays_close():
    process = CASES["vp"]
    images = jnp.full((64, 8), 0.9)
    keys = jax.random.split(jax.random.key(4), 64)
    spread = []
    for start in (0.1, 0.9):
        times = jnp.linspace(start, process.t_min, 20)
        out = editing.image_to_image(
            make_sampler("ddim", process), denoiser(process), process, times, images, keys
        )
        spread.append(float(jnp.mean((out - images) ** 2)))
    assert spread[0] < 0.3 * spread[1]
    assert abs(float(out.mean()) - MEAN) < 0.15  # from much noise: a new draw


def test_noises_between_two_keep_their_norm():
    a, b = np.random.default_rng(2).normal(size=(2, 500)).astype(np.float32)
    between = editing.between(jnp.asarray(a), jnp.asarray(b), 7)
    np.testing.assert_allclose(np.asarray(between)[[0, -1]], [a, b], atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(between, axis=1), np.sqrt(500), rtol=0.08)
    np.testing.assert_allclose(editing.slerp(jnp.ones(3), jnp.ones(3), 0.5), 1.0, rtol=1e-5)


def test_samples_of_gaussian_data_are_its_samples():
    process = CASES["edm"]
    keys = jax.random.split(jax.random.key(5), 2000)
    out, _ = draw(
        make_sampler("heun", process, churn=Churn(20.0)),
        denoiser(process),
        process,
        karras(process, 30),
        keys,
        (4,),
    )
    # The last step returns the denoiser's mean, whose spread is smaller by sigma_min only.
    assert abs(float(out.mean()) - MEAN) < 0.03 and abs(float(out.std()) - STD) < 0.03
    assert moments_at(process, 0.002)[1] > STD
