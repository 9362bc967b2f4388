"""Classifiers: loss, views, mistakes in a config, and the exported feature net."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cnn_digits
from experiments.classifier import classifier
from experiments.classifier.classifier import NETWORKS, VIEWS, Classifier
from genjax.errors import UserError
from genjax.metrics.nets import load_net
from genjax.models.airbench import Airbench
from genjax.models.cnn import Cnn
from genjax.models.resnet import ResNet
from genjax.rng import Rngs
from genjax.runner.config import check_config

CLASSES = tuple("0123456789")
NETWORK = Cnn(10, features=(4, 6), hidden=8, dropout=0.5)


def built(config, class_names=CLASSES, image_shape=(28, 28, 1)):
    check_config(config, classifier.FIELDS, 1)
    return classifier.build(config, image_shape, class_names)


def batch_of(size, shape):
    images = jax.random.uniform(jax.random.key(7), (size, *shape))
    index = jnp.arange(size)
    return {"image": images, "label": index % 10, "index": index, "slot": index}


@pytest.mark.parametrize(
    "network", [NETWORK, ResNet(10, (1, 1), width=4), Airbench(10, (24, 24, 24))]
)
def test_a_classifier_needs_no_config(network):
    shape = (32, 32, 3)
    family = Classifier(network, shape, CLASSES, label_smoothing=0.1)
    images = None
    if family.num_init_examples:
        images = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    params, model_state = jax.jit(family.init)(jax.random.key(0), images)
    batch = batch_of(10, shape)
    rngs = Rngs(jax.random.key(1), 0, batch["slot"])
    grad_fn = jax.jit(
        jax.value_and_grad(lambda p: family.loss(p, model_state, batch, rngs), has_aux=True)
    )
    (loss, (metrics, new_state)), grads = grad_fn(params)
    assert np.isfinite(loss) and 0 <= metrics["accuracy"] <= 1
    assert jax.tree.structure(new_state) == jax.tree.structure(model_state)
    assert all((g != 0).any() for g in jax.tree.leaves(grads))
    values = family.evaluate(params, model_state, batch, rngs)
    numbers = family.summarize({k: np.asarray(v) for k, v in values.items()})
    assert set(numbers) == {"accuracy", "nll_nats", "calibration_error"}
    assert family.export is None


def test_the_loss_is_the_smoothed_cross_entropy():
    family = Classifier(Cnn(10, features=(4,), hidden=8), (12, 12, 1), CLASSES, label_smoothing=0.3)
    params, state = jax.jit(family.init)(jax.random.key(0))
    batch = batch_of(10, (12, 12, 1))
    rngs = Rngs(jax.random.key(1), 0, batch["slot"])
    loss, _ = family.loss(params, state, batch, rngs)
    log_p = jax.nn.log_softmax(family.logits(params, state, batch["image"]))
    own = jnp.take_along_axis(log_p, batch["label"][:, None], axis=1)[:, 0]
    np.testing.assert_allclose(loss, -jnp.mean(0.7 * own + 0.3 * log_p.mean(1)), rtol=1e-5)


def test_views_are_weighted_to_one_and_moved_by_a_pixel():
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 1))
    for views in VIEWS.values():
        assert sum(weight for weight, _ in views(x)) == pytest.approx(1)
        assert all(view.shape == x.shape for _, view in views(x))
    views = VIEWS["multi_crop"](x)
    assert len(views) == 6
    np.testing.assert_array_equal(views[1][1], x[:, :, ::-1])
    np.testing.assert_array_equal(views[2][1][:, 1:, 1:], x[:, :-1, :-1])
    np.testing.assert_array_equal(views[4][1][:, :-1, :-1], x[:, 1:, 1:])
    # Logits of the flipped views do not depend on which way round the image is.
    family = Classifier(NETWORK, (12, 12, 1), CLASSES, views="flip")
    params, state = jax.jit(family.init)(jax.random.key(0))
    images = batch_of(3, (12, 12, 1))["image"]
    both = [family.logits(params, state, x) for x in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("model.name", "cn", "config.model.name='cn' is not known; did you mean 'cnn'"),
        ("model.features", (8, 0), "at least 1"),
        ("model.padding", "SAM", "did you mean 'SAME'"),
        ("model.dropout", 1.0, r"in \[0, 1\)"),
        ("objective.label_smoothing", 1.0, r"in \[0, 1\)"),
        ("eval.views", "flop", "did you mean 'flip'"),
    ],
)
def test_a_mistake_is_one_line(key, value, message):
    config = cnn_digits.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message) as info:
        built(config)
    assert "\n" not in str(info.value)


def test_fields_are_those_of_the_network():
    config = cnn_digits.get_config()
    config.model = {**NETWORKS.select("resnet"), "hidden": 8}
    with pytest.raises(UserError, match="config.model.hidden is not a field of"):
        built(config)
    with pytest.raises(UserError, match="at least two classes"):
        built(cnn_digits.get_config(), ("one",))


@pytest.mark.parametrize("name", NETWORKS.groups)
def test_defaults_are_those_of_the_network(name):
    config = cnn_digits.get_config()
    config.model = NETWORKS.select(name)
    network = built(config).network
    assert network == type(network)(10)


def test_an_exported_net_is_the_network(tmp_path):
    config = cnn_digits.get_config("smoke")
    family = built(config)
    params, state = jax.jit(family.init)(jax.random.key(0))
    family.export(params, state, tmp_path)
    net = load_net(str(tmp_path / "feature_net.npz"))
    assert net.name.startswith("cnn_digits_")
    assert (net.num_classes, net.image_shape) == (10, (28, 28, 1))
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    logits = family.logits(params, state, jnp.asarray(images / 255.0, jnp.float32))
    np.testing.assert_allclose(net.forward(net.variables, images)["logits"], logits, atol=1e-2)


@pytest.mark.parametrize("pixels", ["dequantized", "binarized_static"])
def test_a_net_of_random_pixels_is_not_exported(pixels):
    config = cnn_digits.get_config("smoke")
    config.data.pixels = pixels
    assert built(config).export is None


@pytest.mark.parametrize(
    "name",
    ["cnn_mnist", "cnn_fashion_mnist", "cnn_cifar10", "resnet18_cifar10", "airbench_cifar10"],
)
def test_every_config_fits_its_data(name):
    """Traced at full size; nothing is compiled."""
    config = importlib.import_module(f"configs.{name}").get_config()
    shape = tuple(config.data.image_shape)
    family = built(config, image_shape=shape)
    size = config.batch_size

    def init_and_loss(key, images):
        params, state = jax.jit(family.init)(key)
        index = jnp.arange(size)
        rngs = Rngs(key, 0, index)
        loss, (_, new_state) = family.loss(params, state, {"image": images, "label": index}, rngs)
        return loss, state, new_state

    images = jax.ShapeDtypeStruct((size, *shape), jnp.float32)
    loss, state, new_state = jax.eval_shape(init_and_loss, jax.random.key(0), images)
    assert loss.shape == () and loss.dtype == jnp.float32
    assert state == new_state
