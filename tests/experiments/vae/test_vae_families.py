"""The hierarchy and the VQ-VAE: the same numbers on one device and on two, and what they report."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vdvae_mnist, vqvae_cifar10, vqvae_prior_cifar10
from experiments.vae import codes, vdvae, vqvae
from genjax import rng
from genjax.errors import UserError
from genjax.models.vdvae import VdVae
from genjax.models.vqvae import VqDecoder, VqEncoder
from genjax.plots import PixelsNotFinite
from genjax.runner import modes
from genjax.runner.evaluator import Evaluator, Sampler
from genjax.runner.restore import restored_run
from genjax.runner.run import Run
from genjax.runner.train import train

SOURCE = {"config_file": "a test", "arguments": ""}

# Four steps of a config under jit on one device, and under pmap on two: losses, and the state.
STEPS = """
import importlib, json, sys
import jax, numpy as np
from genjax.data.dataset import train_batches
from genjax.runner.run import Run

def train(name, overrides, kind, devices):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.update_from_flattened_dict(overrides)
    config.parallel, config.num_devices = kind, devices
    run = Run.build(config)
    p = run.parallel
    step = p.compile_train_step(run.train_step, jax.eval_shape(run.init))
    state = run.start()
    batch_at = train_batches(run.train_data, config.batch_size, config.seed)
    losses = []
    for s in range(4):
        state, (metrics, _) = step(state, p.shard(batch_at(s)))
        losses.append(float(p.fetch(metrics)["loss"]))
    copies = [] if kind == "jit" else [
        float(np.ptp(np.asarray(x, np.float64), axis=0).max())
        for x in jax.tree.leaves(state.model_state)
    ]
    state = p.to_local(state.model_state)
    return losses, [float(np.abs(x).sum()) for x in jax.tree.leaves(state)], copies

for name, overrides in json.loads(sys.argv[1]):
    one, two = train(name, overrides, "jit", 1), train(name, overrides, "pmap", 2)
    print(json.dumps([one, two]), flush=True)
"""


@pytest.mark.long
def test_two_devices_train_as_one(python):
    runs = [
        ("vqvae_cifar10", {"model.restart_below": 3.0, "optim.lr": 1e-3}),
        ("vae_mlp_mnist", {"objective.free_bits": 0.3, "model.latent_dim": 3}),
    ]
    out = python(STEPS, json.dumps(runs), devices=2)
    assert out.returncode == 0, out.stderr
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(lines) == len(runs)
    for (one, state, _), (two, other, copies) in lines:
        np.testing.assert_allclose(two, one, rtol=2e-3)
        np.testing.assert_allclose(other, state, rtol=2e-3)
        assert max(copies, default=0) == 0  # every device has the same codebook, to the bit


def test_codes_of_a_run_are_written_and_decode_to_its_reconstructions(tmp_path):
    config = vqvae_cifar10.get_config("smoke")
    config.num_train_steps, config.eval_every_steps, config.sample_every_steps = 2, 0, 0
    report = train(config, tmp_path, SOURCE)
    assert 1 <= report["eval/perplexity"] <= 16 and report["eval/codes_used"] <= 16
    path = vqvae.MODES["codes"](config, tmp_path, SOURCE, "latest")
    with np.load(path) as data:
        run, state, _ = restored_run(config, tmp_path, "latest")
        assert data["train"].shape == (len(run.train_data), 8, 8)
        assert data["test"].shape == (len(run.eval_data), 8, 8) and data["test"].dtype == np.uint8
        np.testing.assert_array_equal(data["test_labels"], run.eval_data.labels)
        assert data["num_codes"] == 16 and data["codebook"].shape == (16, 4)
        counts = np.bincount(data["test"].reshape(-1), minlength=16)
        shares = counts[counts > 0] / counts.sum()
        perplexity = np.exp(-(shares * np.log(shares)).sum())
        assert report["eval/perplexity"] == pytest.approx(perplexity, rel=1e-5)
        # The nearest code of each vector of the encoder, found naively.
        x = jnp.asarray(run.eval_data.images[:3] / 255.0, jnp.float32)
        variables = {"params": state.params["encoder"]}
        z = np.asarray(VqEncoder(4, 8, 2, 1).apply(variables, x))
        distances = ((z[..., None, :] - data["codebook"]) ** 2).sum(-1)
        assert (distances.argmin(-1) == data["test"][:3]).mean() > 0.99  # but for ties
        decode = codes.load_decoder(data)
        images = decode(data["test"][:3].astype(int))
        z = jnp.asarray(data["codebook"])[data["test"][:3]]
        wanted = VqDecoder(3, 8, 2, 1).apply({"params": state.params["decoder"]}, z)
        np.testing.assert_allclose(images, jnp.clip(wanted, 0, 1), atol=1e-5)

    # A NaN has a nearest code, too, which decodes to a clean picture.
    params, model_state = run.eval_tree(state)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["encoder"])
    tree = ({**params, "encoder": nan}, model_state)
    assert np.isnan(run.family.reconstruct(*tree, x)).all()
    with pytest.raises(PixelsNotFinite, match="1415 of 1415 encoded images of train"):
        codes._encode_splits(run, tree, {"train": run.train_data})

    prior = vqvae_prior_cifar10.get_config("smoke")
    prior.data.name, prior.data.pixels = f"codes:{path}", "integers"
    prior.num_train_steps, prior.sample_every_steps, prior.eval_every_steps = 2, 1, 0
    train(prior, tmp_path / "prior", SOURCE)
    images = modes.sample(prior, tmp_path / "prior", SOURCE)
    assert images.shape == (16, 32, 32, 3) and images.dtype == np.uint8
    assert (tmp_path / "prior" / "figures" / "through_training.png").exists()

    with np.load(path) as data:
        fields = json.dumps({**json.loads(str(data["decoder_fields"])), "width": 9})
        np.savez(tmp_path / "other.npz", **{**data, "decoder_fields": fields})
    prior.data.name = f"codes:{tmp_path}/other.npz"
    with pytest.raises(UserError, match="other.npz: its decoder is not one"):
        Run.build(prior)


def test_the_hierarchys_elbo_is_the_sum_over_its_levels_and_images_keep_their_noise():
    config = vdvae_mnist.get_config("smoke")
    config.eval.importance_samples = 4
    run = Run.build(config)
    tree = (run.init().params, {})
    numbers, _ = Evaluator(run)(tree)
    kl = sum(v for k, v in numbers.items() if k.startswith("eval/kl_nats_level_"))
    assert kl == pytest.approx(numbers["eval/kl_nats"], rel=1e-5)
    total = numbers["eval/recon_nats"] + kl
    assert numbers["eval/neg_elbo_nats"] == pytest.approx(total, rel=1e-6)
    assert numbers["eval/nll_nats_iw4"] < numbers["eval/neg_elbo_nats"] + 0.5
    sample = Sampler(run)
    all_images = sample(tree, 3, np.arange(20))
    np.testing.assert_array_equal(sample(tree, 3, [13]), all_images[13:14])
    with pytest.raises(UserError, match="decoder_blocks=.* one more than config.model.factors"):
        config.model.decoder_blocks = (1, 1)
        Run.build(config)


def test_both_are_built_without_a_config_and_learn():
    hierarchy = vdvae.HierarchicalVae(
        VdVae((8, 8, 1), 1, (2, 4), (1, 1, 0), (1, 1, 1), width=8, bottleneck=4, latent_channels=2)
    )
    quantized = vqvae.VqVae(VqEncoder(4, 8, 1, 1), VqDecoder(1, 8, 1, 1), (8, 8, 1), num_codes=16)
    images = (np.random.RandomState(0).rand(10, 8, 8, 1) < 0.3).astype(np.float32)
    batch, slot = {"image": jnp.asarray(images)}, jnp.arange(10)
    for family in (hierarchy, quantized):
        params, state = jax.jit(family.init)(jax.random.key(0))

        @jax.jit
        def loss(params, family=family, state=state):
            rngs = rng.Rngs(jax.random.key(1), jnp.int32(0), slot)
            return family.loss(params, state, batch, rngs)[0]

        value, grads = jax.value_and_grad(loss)(params)
        assert loss(jax.tree.map(lambda p, g: p - 1e-4 * g, params, grads)) < value
