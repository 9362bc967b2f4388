"""The VAE's axes: each is a config choice, right on one device and on many, and checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vae_mlp_mnist
from experiments import evaluation, latents
from experiments.run import Run
from genjax import rng
from genjax.data.dataset import train_batches
from genjax.errors import UserError

SOURCE = {"config_file": "a test", "arguments": ""}


def tiny(**overrides):
    config = vae_mlp_mnist.get_config("smoke")
    config.model.latent_dim = 3
    config.prior.components = 4
    config.update_from_flattened_dict(overrides)
    return config


def loss_of(run, params=None, step=0, state=None):
    """The loss and metrics of the first batch."""
    state = state or run.init()
    batch = jax.tree.map(jnp.asarray, train_batches(run.train_data, 16, 0)(0))
    rngs = rng.Rngs(state.rng, step, batch["slot"])
    batch = run.transform(batch, rngs, train=True)
    loss, (metrics, _) = run.experiment.loss_fn(
        params or state.params, state.model_state, batch, rngs, True
    )
    return float(loss), {k: float(v) for k, v in metrics.items()}


def test_iwae_of_one_sample_is_the_elbo_and_more_samples_are_less():
    losses = {}
    for k in (1, 2, 64):
        run = Run.build(tiny(**{"objective.name": "iwae", "objective.num_samples": k}))
        losses[k], metrics = loss_of(run)
    assert losses[64] < losses[2] < losses[1]
    # With one sample: log q - log p at that z, where the ELBO has the closed form of its mean.
    mixture = tiny(**{"prior.name": "mixture", "prior.components": 1})
    run = Run.build(mixture)
    params = run.init().params
    zeros = {k: jnp.zeros_like(v) for k, v in params["prior"].items()}
    standard, _ = loss_of(run, {**params, "prior": zeros})
    assert standard == pytest.approx(losses[1], rel=1e-6)


def test_the_kl_of_a_standard_normal_as_a_mixture_is_that_of_the_closed_form():
    many = {"objective.num_samples": 512}
    closed, terms = loss_of(Run.build(tiny(**many)))
    run = Run.build(tiny(**many, **{"prior.name": "mixture", "prior.components": 1}))
    params = run.init().params
    zeros = {k: jnp.zeros_like(v) for k, v in params["prior"].items()}
    sampled, others = loss_of(run, {**params, "prior": zeros})
    assert others["recon_nats"] == pytest.approx(terms["recon_nats"], rel=1e-6)
    assert others["kl_nats"] == pytest.approx(terms["kl_nats"], rel=0.1)
    assert closed == pytest.approx(terms["recon_nats"] + terms["kl_nats"], rel=1e-6)


def test_a_vamp_prior_is_the_mean_posterior_of_its_pseudo_inputs():
    run = Run.build(tiny(**{"prior.name": "vamp"}))
    state = run.init()
    first = run.train_data.batch(np.arange(4), np.arange(4))["image"] / 255.0
    np.testing.assert_allclose(state.params["prior"]["pseudo_inputs"], first, rtol=1e-6)
    # Its gradient reaches the pseudo-inputs, and samples are posteriors of the training images.
    grad = jax.grad(lambda p: loss_tree(run, p))(state.params)
    assert jnp.abs(grad["prior"]["pseudo_inputs"]).max() > 0


def loss_tree(run, params):
    state = run.init()
    batch = jax.tree.map(jnp.asarray, train_batches(run.train_data, 16, 0)(0))
    rngs = rng.Rngs(state.rng, 0, batch["slot"])
    batch = run.transform(batch, rngs, train=True)
    return run.experiment.loss_fn(params, state.model_state, batch, rngs, True)[0]


def test_beta_schedules_and_free_bits_weigh_the_kl_as_they_say():
    plain, terms = loss_of(Run.build(tiny()))
    recon = terms["recon_nats"]
    half = {"objective.kl_schedule": "linear", "objective.kl_steps": 10, "objective.beta": 4.0}
    run = Run.build(tiny(**half))
    loss, metrics = loss_of(run, step=5)
    assert metrics["kl_weight"] == 2.0
    expected = metrics["recon_nats"] + 2.0 * metrics["kl_nats"]
    assert loss == pytest.approx(expected, rel=1e-6)
    free, _ = loss_of(Run.build(tiny(**{"objective.free_bits": 100.0})))
    assert free == pytest.approx(recon + 3 * 100.0, rel=1e-6)
    little, _ = loss_of(Run.build(tiny(**{"objective.free_bits": 1e-9})))
    assert little == pytest.approx(plain, rel=1e-6)


def test_a_class_conditional_vae_listens_to_the_class():
    run = Run.build(tiny(**{"model.class_conditional": True, "eval.batch_size": 382}))
    state = run.init()
    evaluator = evaluation.make_evaluator(run)
    right = evaluator((state.params, {}))[0]
    run.eval_data.labels[:] = (run.eval_data.labels + 1) % 10
    wrong = evaluator((state.params, {}))[0]
    assert right["eval/neg_elbo_nats"] != wrong["eval/neg_elbo_nats"]
    count = np.arange(10)
    pictures = run.experiment.figures(
        state.params,
        {},
        {"image": jnp.asarray(run.eval_data.images[:10] / 255.0), "label": jnp.asarray(count)},
    )
    assert {"classes", "reconstructions", "traversal", "interpolation"} <= pictures.keys()


def test_the_importance_weighted_nll_does_not_depend_on_chunks_and_falls_with_k():
    values = {}
    for k, chunk in ((1, 1), (8, 8), (8, 2), (64, 32)):
        overrides = {"eval.importance_samples": k, "eval.importance_chunk": chunk}
        run = Run.build(tiny(**overrides))
        state = run.init()
        found = evaluation.make_evaluator(run)((state.params, {}))[0]
        values[k, chunk] = found[f"eval/nll_nats_iw{k}"]
    assert values[8, 8] == pytest.approx(values[8, 2], rel=1e-6)
    assert values[64, 32] < values[8, 8] < values[1, 1]
    assert values[1, 1] == pytest.approx(found["eval/neg_elbo_nats"], abs=1.0)


def test_evaluation_splits_the_elbo_counts_active_units_and_gives_bits():
    overrides = {"objective.likelihood": "logistic_mixture", "data.pixels": "unit"}
    run = Run.build(tiny(**overrides))
    # 8-bit pixels under uniform weights: near 8 bits.
    state = run.init()
    found, pictures = evaluation.make_evaluator(run)((state.params, {}))
    kls = [found[f"eval/kl_nats_latent_{d:02d}"] for d in range(3)]
    assert sum(kls) == pytest.approx(found["eval/kl_nats"], rel=1e-5)
    bits = found["eval/neg_elbo_nats"] / 784 / np.log(2)
    assert found["eval/bits_per_dim_elbo"] == pytest.approx(bits, rel=1e-6)
    assert set(pictures) == {"latents", "kl_per_latent"}
    values = {
        "neg_elbo_nats": np.ones(4),
        "posterior_mean": np.asarray([[0, 0, 5.0], [0, 0.3, 5], [0, 0, 5], [0, 0.3, 5]]),
        "kl_per_latent": np.zeros((4, 3)),
        "label": np.zeros(4, int),
    }
    assert run.experiment.summarize(values)["active_units"] == 1


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
    ({"eval.importance_samples": 70}, "eval.importance_chunk=50 must be a divisor"),
    ({"model.activation": "reluu"}, "did you mean 'relu'"),
    ({"sample.temperature": -1.0}, "sample.temperature"),
    ({"model.name": "conv64", "model.decoder_features": (4,) * 4}, "image_shape.*multiples of 16"),
]


@pytest.mark.parametrize("overrides,said", MISTAKES, ids=str)
def test_what_does_not_go_together_is_said_in_build(overrides, said):
    with pytest.raises(UserError, match=said):
        Run.build(tiny(**overrides))
