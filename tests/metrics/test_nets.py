"""Feature nets: read as written, pinned, and refused for other images."""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.errors import UserError
from genjax.metrics import nets
from genjax.models.cnn import Cnn

MODEL = {"name": "cnn", "features": (3, 4), "num_pools": 2, "padding": "SAME", "hidden": 8}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    network = Cnn(5, features=(3, 4), padding="SAME", hidden=8)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    path = tmp_path_factory.mktemp("nets") / "net.npz"
    kept = {"num_classes": 5, "pixels": "symmetric", "image_shape": (8, 8, 1), "provenance": {}}
    nets.save_net(path, variables, name="tiny", model=MODEL, **kept)
    return path, network, variables


def test_a_net_is_read_as_it_was_written_but_for_half_precision(saved, rng):
    path, network, variables = saved
    net = nets.load_net(str(path))
    images = rng.integers(0, 256, (3, 8, 8, 1), np.uint8)
    rounded = jax.tree.map(lambda x: x.astype("float16") if x.ndim > 1 else x, variables)
    rounded = jax.tree.map(lambda x: jnp.asarray(x, "float32"), rounded)
    expected = jax.jit(network.apply)(rounded, jnp.asarray(images / np.float32(127.5) - 1))
    for name, value in jax.jit(net.forward)(net.variables, images).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (net.sha256, net.name) == (sha256, f"tiny_{sha256[:8]}")


def test_each_channel_is_seen_alone(saved, rng):
    net = nets.load_net(str(saved[0]))
    stacked = net.for_images((8, 8, 3), per_channel=True)
    images = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    out = jax.jit(stacked.forward)(net.variables, images)
    forward = jax.jit(net.forward)
    one = [forward(net.variables, images[..., c : c + 1]) for c in range(3)]
    np.testing.assert_allclose(
        out["features"], np.concatenate([x["features"] for x in one], axis=1), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        out["logits"], np.stack([x["logits"] for x in one], axis=1), rtol=1e-6, atol=1e-6
    )
    assert stacked.name == f"{net.name}_per_channel"


def test_pinned_nets_are_those_the_numbers_were_made_with():
    digests = {name: nets.load_net(name).sha256[:8] for name in nets.PINNED}
    assert digests == {"cnn_cifar10": "acbd1f10", "cnn_digits": "a1b86650", "cnn_mnist": "6d53cf07"}
    assert set(nets.OF_DATASET.values()) == set(nets.PINNED)


def test_other_images_are_refused(saved):
    net = nets.load_net(str(saved[0]))
    with pytest.raises(UserError, match=r"takes images \(8, 8, 1\), not \(8, 8, 3\); choose"):
        net.for_images((8, 8, 3))
    with pytest.raises(UserError, match="takes images"):
        net.for_images((16, 16, 3), per_channel=True)


def test_what_is_no_net_is_told(saved, tmp_path):
    with pytest.raises(UserError, match="there is no feature net 'cnn_minst': .*cnn_mnist"):
        nets.load_net("cnn_minst")
    other = tmp_path / "x.npz"
    np.savez(other, a=np.zeros(3))
    with pytest.raises(UserError, match="is not a feature net"):
        nets.load_net(str(other))
    arrays = dict(np.load(saved[0]))
    arrays["params/Dense_0/bias"] = np.zeros(9, np.float32)  # of another size
    np.savez(other, **arrays)
    with pytest.raises(UserError, match="is not a feature net"):
        nets.load_net(str(other))
    arrays = dict(np.load(saved[0]))
    arrays["params/Dense_0/bias"][0] = np.inf
    np.savez(other, **arrays)
    with pytest.raises(UserError, match="params/Dense_0/bias is not finite"):
        nets.load_net(str(other))
    Path(other).write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read the weights"):
        nets.load_net(str(other))


def test_inception_without_its_weights_says_where_they_are(tmp_path):
    with pytest.raises(
        UserError, match="there is no file of weights at .*sha256 6726825d.*https://"
    ):
        nets.load_net(f"inception:{tmp_path}/none.pth")
