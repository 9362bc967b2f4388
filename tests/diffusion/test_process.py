"""Processes, their inverses, and the conversions between the targets of networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion.process import PROCESSES, ddpm_cosine, ddpm_linear, sub_vp, vp
from genjax.diffusion.targets import TARGETS, convert, gain, make_target, split
from tests.diffusion.gaussian import CASES

SHAPE = (4, 3, 3, 1)


@pytest.mark.parametrize("name", PROCESSES)
def test_log_snr_falls_and_its_inverse_is_one(name):
    process = CASES[name]
    times = jnp.linspace(process.t_min, process.t_max * 0.999, 301)
    log_snr = process.log_snr(times)
    assert (jnp.diff(log_snr) < 0).all()
    scale = process.t_max - process.t_min
    np.testing.assert_allclose(process.time_of_log_snr(log_snr), times, atol=2e-5 * scale)


def test_ddpm_tables_are_those_of_the_paper():
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    t = np.arange(1, 1001)
    alpha, sigma = ddpm_linear().alpha_sigma(t)
    np.testing.assert_allclose(alpha, np.sqrt(alpha_bar), rtol=3e-6)
    np.testing.assert_allclose(sigma, np.sqrt(1 - alpha_bar), rtol=3e-6)
    f = lambda t: np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha, _ = ddpm_cosine().alpha_sigma(t[:-1])  # the last beta is cut off at 0.999
    np.testing.assert_allclose(alpha**2, f(t[:-1]) / f(0), rtol=1e-4, atol=1e-9)


def test_vp_is_the_limit_of_ddpm_and_sub_vp_has_less_noise():
    t = jnp.linspace(0.05, 1.0, 20)
    np.testing.assert_allclose(
        vp().log_snr(t), ddpm_linear().log_snr(1000 * t), atol=0.15, rtol=0.01
    )
    assert (sub_vp().alpha_sigma(t)[1] < vp().alpha_sigma(t)[1]).all()
    alpha, sigma = vp().alpha_sigma(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)


def draws(process):
    rng = np.random.default_rng(0)
    x0, eps = (jnp.asarray(rng.normal(size=SHAPE), jnp.float32) for _ in range(2))
    middle = process.time_of_log_snr(jnp.asarray([4.0, 1.0, -1.0, -3.0]))
    return x0, eps, middle


@pytest.mark.parametrize("name", PROCESSES)
def test_every_target_converts_into_every_other(name):
    process = CASES[name]
    x0, eps, t = draws(process)
    x = process.add_noise(x0, eps, t)
    for source, target in itertools.product(TARGETS, TARGETS):
        if process.num_steps and "velocity" in (source, target):
            continue
        p = make_target(source, x0, eps, process, t)
        result = convert(p, source, target, x, process, t)
        expected = make_target(target, x0, eps, process, t)
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(
            result, expected, atol=3e-5 * scale, err_msg=f"{source} {target}"
        )


def test_targets_are_what_their_papers_say():
    for name, process in CASES.items():
        x0, eps, t = draws(process)
        alpha, sigma = (np.asarray(c)[:, None, None, None] for c in process.alpha_sigma(t))
        x, sd, s = alpha * x0 + sigma * eps, 0.5, sigma / alpha
        c_skip = sd**2 / (s**2 + sd**2)
        c_out = s * sd / np.sqrt(s**2 + sd**2)
        expected = {
            "eps": eps,
            "x0": x0,
            "v": alpha * eps - sigma * x0,
            "F": (x0 - c_skip * x / alpha) / c_out,
        }
        if name == "flow":
            expected["velocity"] = eps - x0
        if name == "vp":  # the probability-flow ODE of dx = -beta x / 2 dt + sqrt(beta) dw
            beta = 0.1 + np.asarray(t)[:, None, None, None] * 19.9
            expected["velocity"] = -beta * x / 2 + beta * eps / sigma / 2
        for target, value in expected.items():
            result = make_target(target, x0, eps, process, t)
            np.testing.assert_allclose(result, value, rtol=2e-4, atol=2e-5, err_msg=name + target)


def test_gain_is_how_an_error_of_x0_shows():
    process = CASES["flow"]
    x0, eps, t = draws(process)
    x = process.add_noise(x0, eps, t)
    for target in TARGETS:
        p = make_target(target, x0, eps, process, t)
        wrong = split(target, p + 0.01, x, process, t)[0]
        ratio = 0.01 / np.abs(np.asarray(wrong - x0)).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(ratio, gain(target, process, t), rtol=2e-3, err_msg=target)


def test_f_and_velocity_survive_pure_noise():
    process = CASES["flow"]  # alpha(1) = 0
    eps = jax.random.normal(jax.random.key(0), (2, 4))
    for target in ("F", "v", "velocity", "x0"):
        p = make_target(target, 0.7 * jnp.ones((2, 4)), eps, process, 1.0)
        x0, back = split(target, p, eps, process, jnp.float32(1.0))
        np.testing.assert_allclose(x0, 0.7, rtol=1e-5, err_msg=target)
        np.testing.assert_allclose(back, eps, rtol=1e-5, err_msg=target)
