"""Diffusion and one-step families: their objects, and runs as a user starts them."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_digits, diffusion_mnist, edm_cifar10, meanflow_mnist
from experiments.diffusion import denoisers, diffusion, one_step
from experiments.diffusion.diffusion import Diffusion, Sampling
from experiments.diffusion.one_step import ConsistencyTraining, MeanFlow
from genjax import rng
from genjax.diffusion.process import PROCESSES, flow
from genjax.errors import UserError
from genjax.models.dit import DiT
from genjax.runner import modes
from genjax.runner.config import check_config
from genjax.runner.evaluator import Sampler
from genjax.runner.family import completed
from genjax.runner.run import Run
from genjax.runner.train import train

SOURCE = {"config_file": "a test", "arguments": ""}
CLASSES = tuple("0123456789")
TINY = {"model.channels": 4, "model.multipliers": (1,), "model.attention": ()}
# Compiles faster than a U-Net.
NETWORK = DiT(dim=16, depth=1, num_heads=2, patch_size=2, num_classes=10)


def tiny(module, **overrides):
    config = module.get_config("smoke")
    config.update_from_flattened_dict({**TINY, **overrides})
    return config


def built(config, family=diffusion, class_names=CLASSES):
    check_config(config, family.FIELDS, 1)
    return family.build(config, (8, 8, 1), class_names)


def batch_of(count, shape=(4, 4, 1)):
    index = jnp.arange(count)
    images = jnp.tanh(rng.normal(rng.per_example(jax.random.key(1), index), shape))
    return {"image": images, "label": index}, rng.Rngs(jax.random.key(0), 3, index)


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("process.name", "fow", "config.process.name='fow' is not known; did you mean 'flow'"),
        ("process.sigma_min", 0.0, "above 0"),
        ("objective.target", "velocty", "did you mean 'velocity'"),
        ("objective.weighting", "edmm", "did you mean 'edm'"),
        ("objective.time_sampling", "unifrm", "did you mean 'uniform'"),
        ("objective.sigma_data", 0.0, "above 0"),
        ("objective.label_dropout", 1.0, r"in \[0, 1\)"),
        ("sample.sampler", "dpmpp", "did you mean 'dpmpp_2m'"),
        ("sample.schedule", "karas", "did you mean 'karras'"),
        ("sample.num_steps", 0, "at least 1"),
        ("sample.eta", 1.5, r"in \[0, 1\]"),
        ("sample.guidance_interval", (1.0,), "two numbers"),
        ("model.name", "unt", "did you mean 'unet'"),
        ("model.variant", "ddpmp", "did you mean 'ddpm"),
        ("data.pixels", "unit", "'symmetric'"),
        ("process.sigma_min", 80.0, "less than process.sigma_max=80"),
        ("eval.vlb_draws", -1, "at least 0"),
    ],
)
def test_a_mistake_is_one_line(key, value, message):
    config = diffusion_digits.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message) as info:
        built(config)
    assert "\n" not in str(info.value)


def test_combinations_that_make_no_sense_are_refused():
    def refused(message, family=diffusion, module=diffusion_digits, **overrides):
        config = module.get_config()
        with config.unlocked():
            config.update_from_flattened_dict(overrides)
        with pytest.raises(UserError, match=message):
            built(completed(config), family)

    refused("discrete", **{"process.name": "ddpm_linear", "objective.target": "velocity"})
    refused("alpha reaches 0", **{"process.name": "flow", "objective.target": "eps"})
    refused("sample.churn", **{"sample.sampler": "ddim", "sample.churn": 3.0})
    refused("sample.guidance", **{"objective.label_dropout": 0.0})
    refused(
        "at most the process's 1000", **{"process.name": "ddpm_cosine", "sample.num_steps": 1001}
    )
    refused("process.rho is not a field of config.process.name=edm", **{"process.rho": 7})
    refused("model.depth is not a field of config.model.name=unet", **{"model.depth": 7})
    refused("'flow'", one_step, meanflow_mnist, **{"process.name": "edm"})
    refused("guidance", one_step, meanflow_mnist, **{"sample.guidance": 2.0})
    with pytest.raises(UserError, match="no classes"):
        built(diffusion_digits.get_config(), class_names=("one",))


def test_another_name_brings_its_own_fields():
    config = edm_cifar10.get_config()
    config.process.name = "vp"
    full = completed(config)
    assert full.process.to_dict() == denoisers.PROCESSES.select("vp")
    assert full.model == config.model and config.process.sigma_min == 0.002
    # What was set is never dropped without a word.
    config.process.sigma_min = 0.1
    with pytest.raises(UserError, match="process.sigma_min is not a field of .*=vp"):
        built(completed(config))


def test_a_run_from_end_to_end(tmp_path):
    options = {"num_train_steps": 4, "eval.vlb_draws": 1, "sample.sampler": "ddim"}
    options |= {"eval.num_samples": 0, "eval.num_samples_in_loop": 0}
    config = tiny(diffusion_digits, **options)
    report = train(config, tmp_path, SOURCE)
    terms = [report[f"eval/bpd_vlb_{t}"] for t in ("prior", "diffusion", "reconstruction")]
    np.testing.assert_allclose(report["eval/bpd_vlb"], sum(terms), rtol=1e-6)
    assert (tmp_path / "unet.safetensors").exists()
    for name in ("progress", "inpainted", "walk"):
        assert (tmp_path / "figures" / f"{name}.png").exists()

    # Validation sees the same times and noises whatever the batch; image i is one image.
    config.eval.batch_size = 382
    again = modes.evaluate(config, tmp_path, SOURCE)
    names = [name for name in report if name.startswith("eval/")]
    for name in names:
        np.testing.assert_allclose(again[name], report[name], rtol=1e-4)
    run = Run.build(config)
    tree = run.init().params, {}
    sample = Sampler(run)
    images = sample(tree, 5, np.arange(20))
    np.testing.assert_array_equal(sample(tree, 5, [17]), images[17:18])
    assert (images[16] != images[17]).any()


def test_labels_are_dropped_as_often_as_asked():
    family = Diffusion(NETWORK, (4, 4, 1), label_dropout=0.3)
    labels = family.drop_labels(jnp.full(4000, 7), jax.random.split(jax.random.key(0), 4000))
    assert set(np.asarray(labels).tolist()) == {7, 10}
    np.testing.assert_allclose(jnp.mean(labels == 10), 0.3, atol=0.03)


@pytest.mark.parametrize(
    "family",
    [
        Diffusion(NETWORK, (4, 4, 1), sampling=Sampling(num_steps=4)),
        Diffusion(
            NETWORK,
            (4, 4, 1),
            label_dropout=0.1,
            process=flow(),
            target="velocity",
            time_sampling="logit_normal",
            time_mean=0.0,
            time_std=1.0,
            sampling=Sampling(schedule="linear", num_steps=4, guidance=2.0),
        ),
        MeanFlow(NETWORK, (4, 4, 1)),
        ConsistencyTraining(NETWORK, (4, 4, 1), num_train_steps=8, num_steps=2),
    ],
    ids=["edm", "flow", "meanflow", "consistency"],
)
def test_losses_fall_on_one_batch_without_a_config(family):
    params, _ = jax.jit(family.init)(jax.random.key(0))
    batch, rngs = batch_of(10)

    @jax.jit
    def step(params):
        (loss, _), grads = jax.value_and_grad(family.loss, has_aux=True)(params, {}, batch, rngs)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), loss

    losses = []
    for _ in range(25):
        params, loss = step(params)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    images = jax.jit(family.sample)(params, {}, jax.random.split(jax.random.key(2), 3))
    assert images.shape == (3, 4, 4, 1) and images.min() >= 0 and images.max() <= 1


def test_a_config_builds_what_it_says():
    config = tiny(diffusion_mnist, **{"sample.num_steps": 7, "objective.time_std": 1.5})
    family = built(config)
    assert family.sampling.num_steps == 7 and family.time_std == 1.5
    assert family.network.channels == 4 and family.num_classes == 10
    config = tiny(meanflow_mnist, **{"sample.num_steps": 7, "objective.time_std": 1.5})
    family = built(config, one_step)
    assert type(family) is MeanFlow and family.num_steps == 7 and family.time_std == 1.5
    config.update_from_flattened_dict({"objective.name": "consistency", "num_train_steps": 9})
    config.process = one_step.PROCESSES.select("edm", sigma_max=40.0)
    family = built(config, one_step)
    assert type(family) is ConsistencyTraining
    assert family.num_train_steps == 9 and family.process.t_max == 40.0


def test_the_odes_likelihood_is_a_number_of_the_report():
    family = Diffusion(NETWORK, (4, 4, 1), ode_tolerance=1e-2)
    params, _ = jax.jit(family.init)(jax.random.key(0))
    batch, rngs = batch_of(3)
    batch["image"] = jnp.zeros((3, 4, 4, 1))
    values = jax.jit(lambda params: family.evaluate(params, {}, batch, rngs))(params)
    numbers = family.summarize(jax.tree.map(np.asarray, values))
    # A new network predicts zero: Gaussian data of sigma_data 0.5, whose density at 0 is known.
    wanted = np.log2(np.sqrt(2 * np.pi) * 0.5) + np.log2(256 / 2)
    np.testing.assert_allclose(numbers["bpd_ode_dequantized"], wanted, atol=0.05)


def test_every_field_of_a_network_and_a_process_is_a_config_field_with_its_default():
    config = diffusion_digits.get_config()
    for name in denoisers.NETWORKS.groups:
        config.model = denoisers.NETWORKS.select(name)
        network = denoisers.make_network(config, CLASSES)
        fields = {f.name: f.default for f in dataclasses.fields(network)}
        for key in ("num_classes", "dtype", "parent", "name"):
            del fields[key]
        assert denoisers.NETWORKS.select(name) == {"name": name, "conditional": False, **fields}
    assert denoisers.PROCESSES.groups.keys() == PROCESSES.keys()
    for name, make in PROCESSES.items():
        fields = {key: p.default for key, p in inspect.signature(make).parameters.items()}
        assert denoisers.PROCESSES.select(name) == {"name": name, **fields}
