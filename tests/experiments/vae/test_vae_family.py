"""The VAE's axes: each is a config choice, right on one device and on many, and checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vae_mlp_mnist
from experiments.vae import latents, vae
from genjax import rng
from genjax.errors import UserError
from genjax.models.vae_mlp import MlpDecoder, MlpEncoder
from genjax.runner.run import Run

CLASS_NAMES = tuple("0123456789")


def tiny(**overrides):
    config = vae_mlp_mnist.get_config("smoke")
    config.model.latent_dim = 3
    config.update_from_flattened_dict(overrides)
    if config.prior.name != "standard_normal":
        config.prior.components = 4
    return config


def built(**overrides):
    return vae.build(tiny(**overrides), (28, 28, 1), CLASS_NAMES)


def images(count):
    """Binary images, a fifth of whose pixels are white at most, and their labels."""
    r = np.random.RandomState(0)
    x = (r.rand(count, 28, 28, 1) < 0.2 * r.rand(count, 1, 1, 1)).astype(np.float32)
    label, slot = jnp.asarray(r.randint(0, 10, count)), jnp.arange(count)
    return {"image": jnp.asarray(x), "label": label, "index": slot, "slot": slot}


def rngs_of(batch, step=0):
    return rng.Rngs(jax.random.key(1), jnp.int32(step), batch["slot"])


def loss_of(family, params=None, step=0):
    """The loss and metrics of a batch."""
    batch = images(16)
    params = jax.jit(family.init)(jax.random.key(0))[0] if params is None else params
    loss, (metrics, _) = family.loss(params, {}, batch, rngs_of(batch, step))
    return float(loss), {k: float(v) for k, v in metrics.items()}


def evaluated(family, batch, params=None):
    params = jax.jit(family.init)(jax.random.key(0))[0] if params is None else params
    values = jax.jit(lambda p: family.evaluate(p, {}, batch, rngs_of(batch)))(params)
    return {k: np.asarray(v) for k, v in values.items()}


def standard_normal_params(family):
    """Parameters of a VAE whose prior is a mixture of one component: a standard normal."""
    params = jax.jit(family.init)(jax.random.key(0))[0]
    return {**params, "prior": {k: jnp.zeros_like(v) for k, v in params["prior"].items()}}


def test_a_vae_is_built_without_a_config_and_learns():
    family = vae.Vae(MlpEncoder(2, (8,)), MlpDecoder((28, 28, 1), (8,)), (28, 28, 1), 2)
    batch = images(10)
    params, state = jax.jit(family.init)(jax.random.key(0))
    loss = lambda p: family.loss(p, state, batch, rngs_of(batch))[0]
    value, grads = jax.value_and_grad(loss)(params)
    assert loss(jax.tree.map(lambda p, g: p - 1e-4 * g, params, grads)) < value


def test_iwae_of_one_sample_is_the_elbo_and_more_samples_are_less():
    losses = {}
    for k in (1, 2, 64):
        losses[k], _ = loss_of(built(**{"objective.name": "iwae", "objective.num_samples": k}))
    assert losses[64] < losses[2] < losses[1]
    # With one sample: log q - log p at that z, where the ELBO has the closed form of its mean.
    mixture = built(**{"prior.name": "mixture", "prior.components": 1})
    standard, _ = loss_of(mixture, standard_normal_params(mixture))
    assert standard == pytest.approx(losses[1], rel=1e-6)


def test_the_kl_of_a_standard_normal_as_a_mixture_is_that_of_the_closed_form():
    many = {"objective.num_samples": 512}
    closed, terms = loss_of(built(**many))
    mixture = built(**many, **{"prior.name": "mixture", "prior.components": 1})
    sampled, others = loss_of(mixture, standard_normal_params(mixture))
    assert others["recon_nats"] == pytest.approx(terms["recon_nats"], rel=1e-6)
    assert others["kl_nats"] == pytest.approx(terms["kl_nats"], rel=0.1)
    assert closed == pytest.approx(terms["recon_nats"] + terms["kl_nats"], rel=1e-6)


def test_a_vamp_prior_is_the_mean_posterior_of_its_pseudo_inputs():
    run = Run.build(tiny(**{"prior.name": "vamp"}))
    params = run.init().params
    first = run.train_data.batch(np.arange(4), np.arange(4))["image"] / 255.0
    np.testing.assert_allclose(params["prior"]["pseudo_inputs"], first, rtol=1e-6)
    # Its gradient reaches the pseudo-inputs, and samples are posteriors of the training images.
    batch = images(16)
    grad = jax.grad(lambda p: run.family.loss(p, {}, batch, rngs_of(batch))[0])(params)
    assert jnp.abs(grad["prior"]["pseudo_inputs"]).max() > 0


def test_beta_schedules_and_free_bits_weigh_the_kl_as_they_say():
    plain, terms = loss_of(built())
    recon = terms["recon_nats"]
    half = {"objective.kl_schedule": "linear", "objective.kl_steps": 10, "objective.beta": 4.0}
    loss, metrics = loss_of(built(**half), step=5)
    assert metrics["kl_weight"] == 2.0
    expected = metrics["recon_nats"] + 2.0 * metrics["kl_nats"]
    assert loss == pytest.approx(expected, rel=1e-6)
    free, _ = loss_of(built(**{"objective.free_bits": 100.0}))
    assert free == pytest.approx(recon + 3 * 100.0, rel=1e-6)
    little, _ = loss_of(built(**{"objective.free_bits": 1e-9}))
    assert little == pytest.approx(plain, rel=1e-6)


def test_a_class_conditional_vae_listens_to_the_class():
    family = built(**{"model.class_conditional": True})
    params, batch = jax.jit(family.init)(jax.random.key(0))[0], images(10)
    right = evaluated(family, batch, params)["neg_elbo_nats"]
    shifted = {**batch, "label": (batch["label"] + 1) % 10}
    assert (right != evaluated(family, shifted, params)["neg_elbo_nats"]).all()
    pictures = family.figures(params, {}, batch)
    assert {"classes", "reconstructions", "traversal", "interpolation"} <= pictures.keys()


def test_the_importance_weighted_nll_does_not_depend_on_chunks_and_falls_with_k():
    batch, nll = images(200), {}
    for k, chunk in ((1, 1), (8, 8), (8, 3), (8, 50), (64, 32)):
        overrides = {"eval.importance_samples": k, "eval.importance_chunk": chunk}
        family = built(**overrides)
        values = evaluated(family, batch)
        nll[k, chunk] = family.summarize(values)[f"nll_nats_iw{k}"]
        if k == 1:  # another estimate of the same
            difference = values["nll_nats_iw1"] - values["neg_elbo_nats"]
            assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5
    assert nll[8, 8] == pytest.approx(nll[8, 3], rel=1e-6)
    assert nll[8, 8] == pytest.approx(nll[8, 50], rel=1e-6)
    assert nll[64, 32] < nll[8, 8] < nll[1, 1]


def test_evaluation_splits_the_elbo_counts_active_units_and_gives_bits():
    family = built(**{"objective.likelihood": "logistic_mixture", "data.pixels": "unit"})
    values = evaluated(family, images(20))
    numbers = family.summarize(values)
    kls = [numbers[f"kl_nats_latent_{d:02d}"] for d in range(3)]
    assert sum(kls) == pytest.approx(numbers["kl_nats"], rel=1e-5)
    bits = numbers["neg_elbo_nats"] / 784 / np.log(2)
    assert numbers["bits_per_dim_elbo"] == pytest.approx(bits, rel=1e-6)
    assert set(family.evaluation_figures(values)) == {"latents", "kl_per_latent"}
    values = {
        "neg_elbo_nats": np.ones(4),
        "posterior_mean": np.asarray([[0, 0, 5.0], [0, 0.3, 5], [0, 0, 5], [0, 0.3, 5]]),
        "kl_per_latent": np.zeros((4, 3)),
        "label": np.zeros(4, int),
    }
    assert family.summarize(values)["active_units"] == 1


def test_paths_between_latents():
    a, b = np.asarray([3.0, 0.0]), np.asarray([0.0, 3.0])
    line, arc = latents.linear_path(a, b, 5), latents.spherical_path(a, b, 5)
    for path in (line, arc):
        np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(line[2], [1.5, 1.5])
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 3.0)
    np.testing.assert_allclose(latents.spherical_path(a, -a, 3)[1], 0, atol=1e-6)  # no arc: a line


MISTAKES = [
    ({"prior.name": "vampp"}, "did you mean 'vamp'"),
    ({"prior.name": "vamp", "model.class_conditional": True}, "prior.name='vamp'"),
    ({"prior.name": "vamp", "objective.free_bits": 0.1}, "objective.free_bits=0.1"),
    ({"objective.name": "iwae", "objective.beta": 2.0}, "objective.beta=2.0 must be 1.0 with iwae"),
    ({"objective.kl_schedule": "linear"}, "objective.kl_steps=0"),
    ({"objective.num_samples": 0}, "objective.num_samples=0"),
    ({"objective.likelihood": "logistic_mixture"}, "data.pixels='binarized_dynamic' must be unit"),
    ({"eval.importance_chunk": 10}, "importance_chunk=10 .* only with .*importance_samples set"),
    ({"data.pixels": "integers"}, "data.pixels='integers' must be a kind of pixels in"),
    ({"model.activation": "reluu"}, "did you mean 'relu'"),
    ({"sample.temperature": -1.0}, "sample.temperature"),
    ({"model.name": "conv64", "model.decoder_features": (4,) * 4}, "image_shape.*multiples of 16"),
]


@pytest.mark.parametrize("overrides,message", MISTAKES, ids=str)
def test_what_does_not_go_together_is_said_in_build(overrides, message):
    with pytest.raises(UserError, match=message):
        Run.build(tiny(**overrides))
