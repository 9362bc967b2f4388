"""Diffusion and one-step runs as a user starts them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_digits, diffusion_mnist, meanflow_mnist
from experiments import denoisers, diffusion, evaluation, one_step, training
from experiments.run import Run
from genjax import rng
from genjax.errors import UserError

SOURCE = {"config_file": "a test", "arguments": ""}
CLASSES = tuple("0123456789")
TINY = {"model.channels": 4, "model.multipliers": (1,), "model.attention": ()}


def tiny(module, **overrides):
    config = module.get_config("smoke")
    config.update_from_flattened_dict({**TINY, **overrides})
    return config


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("process.name", "fow", "config.process.name='fow' is not known; did you mean 'flow'"),
        ("objective.target", "velocty", "did you mean 'velocity'"),
        ("objective.weighting", "edmm", "did you mean 'edm'"),
        ("objective.time_sampling", "unifrm", "did you mean 'uniform'"),
        ("objective.sigma_data", 0.0, "above 0"),
        ("objective.label_dropout", 1.0, r"in \[0, 1\)"),
        ("sample.sampler", "dpmpp", "did you mean 'dpmpp_2m'"),
        ("sample.schedule", "karas", "did you mean 'karras'"),
        ("sample.num_steps", 0, "at least 1"),
        ("sample.eta", 1.5, r"in \[0, 1\]"),
        ("model.name", "unt", "did you mean 'unet'"),
        ("model.variant", "ddpmp", "did you mean 'ddpm"),
        ("data.pixels", "unit", "'symmetric'"),
        ("eval.vlb_draws", -1, "at least 0"),
    ],
)
def test_a_mistake_is_one_line(key, value, message):
    config = diffusion_digits.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message) as info:
        diffusion.build(config, (8, 8, 1), CLASSES, None)
    assert "\n" not in str(info.value)


def test_combinations_that_make_no_sense_are_refused():
    def refused(message, build=diffusion.build, module=diffusion_digits, **overrides):
        config = module.get_config()
        with config.unlocked():
            config.update_from_flattened_dict(overrides)
        with pytest.raises(UserError, match=message):
            build(config, (8, 8, 1), CLASSES, None)

    refused("discrete", **{"process.name": "ddpm_linear", "objective.target": "velocity"})
    refused("alpha reaches 0", **{"process.name": "flow", "objective.target": "eps"})
    refused("sample.churn", **{"sample.sampler": "ddim", "sample.churn": 3.0})
    refused("sample.guidance", **{"objective.label_dropout": 0.0})
    refused(
        "at most the process's 1000", **{"process.name": "ddpm_cosine", "sample.num_steps": 1001}
    )
    refused("unexpected keyword argument 'rho'", **{"process.rho": 7})
    refused("not a field of unet", **{"model.depth": 7})
    refused("'flow'", one_step.build, meanflow_mnist, **{"process.name": "edm"})
    refused("guidance", one_step.build, meanflow_mnist, **{"sample.guidance": 2.0})
    config = diffusion_digits.get_config()
    with pytest.raises(UserError, match="no classes"):
        diffusion.build(config, (8, 8, 1), ("one",), None)


def test_a_run_from_end_to_end(tmp_path):
    options = {"num_train_steps": 4, "eval.vlb_draws": 1, "sample.sampler": "ddim"}
    options |= {"eval.num_samples": 0, "eval.num_samples_in_loop": 0}
    config = tiny(diffusion_digits, **options)
    report = training.train(config, tmp_path, SOURCE)
    terms = [report[f"eval/bpd_vlb_{t}"] for t in ("prior", "diffusion", "reconstruction")]
    np.testing.assert_allclose(report["eval/bpd_vlb"], sum(terms), rtol=1e-6)
    assert (tmp_path / "unet.safetensors").exists()
    for name in ("progress", "inpainted", "walk"):
        assert (tmp_path / "figures" / f"{name}.png").exists()

    # Validation sees the same times and noises whatever the batch; image i is one image.
    config.eval.batch_size = 382
    again = evaluation.evaluate(config, tmp_path, SOURCE)
    names = [name for name in report if name.startswith("eval/")]
    for name in names:
        np.testing.assert_allclose(again[name], report[name], rtol=1e-4)
    run = Run.build(config)
    tree = run.init().params, {}
    sample = evaluation.make_sampler(run)
    whole = sample(tree, 5, np.arange(20))
    np.testing.assert_array_equal(sample(tree, 5, [17]), whole[17:18])
    assert (whole[16] != whole[17]).any()


def experiment_of(module, build, **overrides):
    config = tiny(module, **overrides)
    experiment = build(config, (4, 4, 1), CLASSES, None)
    return experiment, jax.jit(experiment.init)(jax.random.key(0))[0]


def test_labels_are_dropped_as_often_as_asked():
    config = diffusion_digits.get_config()
    config.objective.label_dropout = 0.3
    dropped = denoisers.label_dropper(config, 10)
    keys = jax.random.split(jax.random.key(0), 4000)
    labels = dropped(jnp.full(4000, 7), keys)
    assert set(np.asarray(labels).tolist()) == {7, 10}
    np.testing.assert_allclose(jnp.mean(labels == 10), 0.3, atol=0.03)


@pytest.mark.parametrize(
    "module,build,overrides",
    [
        (diffusion_mnist, diffusion.build, {"model.patch_size": 1}),
        (meanflow_mnist, one_step.build, {"model.patch_size": 1}),
        (
            meanflow_mnist,
            one_step.build,
            {
                "model.patch_size": 1,
                "objective.name": "consistency",
                "process.name": "edm",
                "sample.num_steps": 2,
                "sample.schedule": "karras",
            },
        ),
    ],
)
def test_losses_fall_on_one_batch(module, build, overrides):
    experiment, params = experiment_of(module, build, **overrides)
    index = jnp.arange(8)
    images = jnp.tanh(rng.normal(rng.per_example(jax.random.key(1), index), (4, 4, 1)))
    batch = {"image": images, "label": index}
    rngs = rng.Rngs(jax.random.key(0), 3, index)

    @jax.jit
    def step(params):
        (loss, _), grads = jax.value_and_grad(experiment.loss_fn, has_aux=True)(
            params, {}, batch, rngs, True
        )
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), loss

    losses = []
    for _ in range(25):
        params, loss = step(params)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    images = experiment.sample(params, {}, jax.random.split(jax.random.key(2), 3))
    assert images.shape == (3, 4, 4, 1) and images.min() >= 0 and images.max() <= 1


def test_the_odes_likelihood_is_a_number_of_the_report():
    experiment, params = experiment_of(
        diffusion_digits, diffusion.build, **{"eval.vlb_draws": 0, "eval.ode_tolerance": 1e-2}
    )
    index = jnp.arange(3)
    batch = {"image": jnp.zeros((3, 4, 4, 1)), "label": index}
    rngs = rng.Rngs(jax.random.key(0), 0, index)
    values = jax.jit(lambda params: experiment.eval_fn(params, {}, batch, rngs))(params)
    numbers = experiment.summarize(values)
    # A new network says zero: Gaussian data of sigma_data 0.5, whose density at 0 is known.
    wanted = np.log2(np.sqrt(2 * np.pi) * 0.5) + np.log2(256 / 2)
    np.testing.assert_allclose(numbers["bpd_ode_dequantized"], wanted, atol=0.05)


def test_every_field_of_a_network_is_in_its_configs():
    for module in (diffusion_digits, diffusion_mnist, meanflow_mnist):
        config = module.get_config()
        network = denoisers.make_network(config, 10)
        assert {f.name for f in dataclasses.fields(network)} >= set(config.model) - {
            "name",
            "conditional",
        }
