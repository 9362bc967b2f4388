"""Sampling is one program: no host in its loop, of one size for any number of steps."""

import jax
import pytest

from experiments.diffusion.diffusion import Diffusion, Sampling
from experiments.diffusion.one_step import ConsistencyTraining, MeanFlow
from genjax.diffusion.process import edm
from genjax.diffusion.samplers import SAMPLERS
from genjax.models.dit import DiT

NETWORK, SHAPE, IMAGES = DiT(16, 1, 2), (8, 8, 1), 2


def family_of(name, num_steps):
    if name == "meanflow":
        return MeanFlow(NETWORK, SHAPE, num_steps=num_steps)
    if name == "consistency":
        return ConsistencyTraining(NETWORK, SHAPE, num_steps=num_steps)
    # Churn: with all that a step can have.
    sampling = Sampling(sampler=name, num_steps=num_steps, eta=0.5, churn=1.0)
    return Diffusion(NETWORK, SHAPE, process=edm(), sampling=sampling)


def lowered(name, num_steps):
    family = family_of(name, num_steps)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), IMAGES))
    params = jax.eval_shape(lambda: family.init(jax.random.key(0))[0])
    return jax.jit(lambda params, keys: family.sample(params, {}, keys)).lower(params, keys)


@pytest.mark.parametrize("name", [*SAMPLERS, "meanflow", "consistency"])
def test_a_sampler_is_one_program_of_one_size(name):
    few, many = (lowered(name, steps).as_text() for steps in (4, 32))
    assert len(few.splitlines()) == len(many.splitlines())
    assert few.count("dot_general") == many.count("dot_general")
    assert "callback" not in many and "infeed" not in many and "outfeed" not in many
    evaluations = 2 if name == "heun" else 1
    once = jax.jit(NETWORK.apply).lower(*shapes_of_a_call()).as_text().count("dot_general")
    assert many.count("dot_general") == evaluations * once  # the network is there once


def shapes_of_a_call():
    """Parameters of the network, noisy images and their times."""
    x = jax.ShapeDtypeStruct((IMAGES, *SHAPE), "float32")
    time = jax.ShapeDtypeStruct((IMAGES,), "float32")
    return jax.eval_shape(NETWORK.init, jax.random.key(0), x, time), x, time


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m", "consistency"])
def test_the_images_of_all_steps_are_not_held(name):
    few, many = (lowered(name, steps).compile().memory_analysis() for steps in (4, 132))
    image = 4 * IMAGES * SHAPE[0] * SHAPE[1]
    assert many.temp_size_in_bytes - few.temp_size_in_bytes < 128 * image / 4
