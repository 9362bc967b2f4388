"""The family as the trainer sees it: what it refuses, codes as data, its numbers and pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pixelcnn_digits, pixelcnn_pp_cifar10, pixelrnn_mnist
from experiments.autoregressive.autoregressive import Autoregressive
from genjax import rng
from genjax.errors import UserError
from genjax.models.pixelcnn import GatedPixelCnn
from genjax.objectives.pixel_heads import Bernoulli
from genjax.runner.evaluator import Evaluator
from genjax.runner.run import Run


def config_of(module=pixelcnn_digits, **overrides):
    config = module.get_config("smoke")
    config.data.image_shape = (8, 8, config.data.image_shape[2])
    config.eval.num_samples = 0  # no feature net sees such images
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"model__name": "pixelcn"}, "did you mean 'pixelcnn'"),
        ({"objective__head": "softmx"}, "did you mean 'softmax'"),
        ({"data__pixels": "dequantized"}, "config.data.pixels='dequantized' must be unit"),
        ({"data__pixels": "unit"}, "bernoulli only for pixels of two levels"),
        ({"model__first_kernel": 4}, "config.model.first_kernel=4 must be odd"),
        ({"model__features": 0}, "config.model.features=0 must be at least 1"),
        ({"sample__temperature": 0.0}, "config.sample.temperature=0.0 must be above 0"),
        ({"data__image_shape": (8, 8, 3), "model__features": 4}, "a multiple of the 3 colours"),
        ({"data__name": "codes:/nowhere.npz"}, "is not a .npz file of codes"),
    ],
)
def test_mistakes_are_told(overrides, message):
    with pytest.raises(UserError, match=message):
        Run.build(config_of(**overrides))


def test_networks_of_whole_pixels_need_a_head_that_couples_their_colours():
    with pytest.raises(UserError, match="need config.objective.head=logistic_mixture"):
        Run.build(config_of(pixelcnn_pp_cifar10, objective__head="softmax"))
    with pytest.raises(UserError, match="does not take config.data.image_shape"):
        Run.build(config_of(pixelcnn_pp_cifar10, data__image_shape=(9, 8, 3)))
    with pytest.raises(UserError, match="did you mean 'diagonal'"):
        Run.build(config_of(pixelrnn_mnist, model__kind="diagonl"))


def test_the_test_set_has_its_exact_likelihood_in_nats_and_bits():
    run = Run.build(config_of(model__class_conditional=True))
    state = run.init()
    zero = jax.tree.map(lambda p: 0 * p, state.params)  # every pixel has probability 1/2
    numbers, _ = Evaluator(run)((zero, {}))
    np.testing.assert_allclose(numbers["eval/nll_nats"], 64 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(numbers["eval/bpd"], 1.0, rtol=1e-6)


def test_completions_keep_what_was_given_and_every_picture_is_there():
    run = Run.build(config_of())
    batch = {k: v[:3] for k, v in run.eval_data.batch(np.arange(3), np.arange(3)).items()}
    batch["image"] = (batch["image"] > 127).astype(np.float32)
    pictures = run.family.figures(run.init().params, {}, batch)
    assert set(pictures) == {"completions", "likelihood", "progress"}
    cells = pictures["completions"][2:, 2:, 0].reshape(3, 10, 7, 10)[:, :8, :, :8]
    upper = cells[:, :4].transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(upper, np.broadcast_to(upper[:, :1], upper.shape))
    assert (upper[:, 0] == 255 * batch["image"][:, :4, :, 0]).all()
    assert set(np.unique(pictures["completions"])) == {0, 128, 255}


def test_codes_are_a_dataset_of_integers(tmp_path):
    r = np.random.RandomState(0)
    codes = {split: r.randint(0, 300, (20, 4, 4)) for split in ("train", "test")}
    path = tmp_path / "codes.npz"
    np.savez(path, **codes, num_codes=300)
    wanted = {"data__name": f"codes:{path}", "data__pixels": "integers"}
    wanted |= {"data__image_shape": (4, 4, 1), "objective__head": "softmax"}
    run = Run.build(config_of(**wanted))
    np.testing.assert_array_equal(run.train_data.images[..., 0], codes["train"])
    params = jax.tree.map(lambda p: 0 * p, run.init().params)
    numbers, _ = Evaluator(run)((params, {}))
    np.testing.assert_allclose(numbers["eval/bpd"], np.log2(300), rtol=1e-6)
    keys = rng.per_example(jax.random.key(0), np.arange(2))
    drawn = np.asarray(run.family.sample(params, {}, keys)) * 299
    assert drawn.shape == (2, 4, 4, 1) and drawn.max() > 255
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-3)

    np.savez(path, **codes, num_codes=200)
    with pytest.raises(UserError, match="a code is not in 0 .. num_codes - 1"):
        Run.build(config_of(**wanted))
    with pytest.raises(UserError, match="not config.data.image_shape"):
        np.savez(path, **codes, num_codes=300)
        Run.build(config_of(**{**wanted, "data__image_shape": (5, 4, 1)}))
    with pytest.raises(UserError, match="bernoulli only for pixels"):
        Run.build(config_of(**{**wanted, "objective__head": "bernoulli"}))


def test_a_model_is_built_without_a_config_and_learns():
    network = GatedPixelCnn(1, features=4, dilations=(1,), first_kernel=3)
    family = Autoregressive(network, Bernoulli(levels=2), (8, 8, 1))
    images = (np.random.RandomState(0).rand(10, 8, 8, 1) < 0.3).astype(np.float32)
    rngs = rng.Rngs(jax.random.key(1), jnp.int32(0), jnp.arange(10))
    params, state = jax.jit(family.init)(jax.random.key(0))
    loss = jax.jit(lambda p: family.loss(p, state, {"image": jnp.asarray(images)}, rngs)[0])
    value, grads = jax.value_and_grad(loss)(params)
    assert loss(jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)) < value
