"""Every field that all runs share changes a run, or is held by a test of its own; one that cannot
have an effect is refused."""

import sys
import types

import jax.numpy as jnp
import pytest

import experiments
from genjax import rng
from genjax.errors import UserError
from genjax.runner.config import FIELDS, make_config
from genjax.runner.evaluator import SampleJudge, never
from genjax.runner.family import Family
from genjax.runner.fields import check_idle
from genjax.runner.run import Run
from tests.effects import Case, Held, another, described, held, leaves

EFFECTS = "tests/experiments/test_effects.py::"
PARALLEL = "tests/train/test_parallel.py::"
INCEPTION = "tests/models/test_inception.py::"
JUDGE = "tests/runner/test_judge.py::"
CHECKPOINTS = "tests/train/test_checkpoint.py::test_retention_keeps_the_last_the_nth_and_the_best"
LAUNCH = "tests/test_launch.py::"
MISTAKE = f"{LAUNCH}test_a_mistake_is_one_line_and_exit_code_2_and_compiles_nothing"
CONTRACT = "tests/runner/test_contract.py::"
JUDGED = {"eval.num_samples": 10, "eval.metrics": ("fd",)}

CASES = {
    "experiment": Held(MISTAKE),
    "seed": Held(
        "tests/runner/test_resume.py::test_other_seeds_end_elsewhere_and_the_same_seed_does_not"
    ),
    "num_seeds": Held(f"{CONTRACT}test_seeds_are_summarised"),
    "parallel": Case("pmap"),
    "num_devices": Held(f"{PARALLEL}test_more_devices_than_there_are"),
    "batch_size": Case(64),
    "num_train_steps": Case(500, on={"optim.schedule": "linear"}),
    "steps_per_call": Case(5),
    "compute_dtype": Held(f"{EFFECTS}test_half_precision_reaches_networks"),
    "optim.name": Case("sgd"),
    "optim.lr": Case(off={"optim.name": "lbfgs"}),
    "optim.schedule": Case("linear", off={"optim.name": "lbfgs"}),
    "optim.warmup_steps": Case(10, off={"optim.name": "lbfgs"}),
    "optim.b1": Case(off={"optim.name": "sgd"}),
    "optim.b2": Case(off={"optim.name": "airbench"}),
    "optim.eps": Case(off={"optim.name": "sgd"}),
    "optim.momentum": Case(on={"optim.name": "sgd"}),
    "optim.weight_decay": Case(on={"optim.name": "adamw"}),
    "optim.clip_norm": Case(off={"optim.name": "lbfgs"}),
    "optim.skip_norm": Case(off={"optim.name": "lbfgs"}),
    "optim.accumulate_steps": Case(2),
    "ema.decay": Case(off={"ema.half_life_images": 10.0}),
    "ema.warmup": Case(on={"ema.decay": 0.5}),
    "data.name": Held("tests/data/test_dataset.py::test_a_prepared_tfds_directory_is_read"),
    "data.data_dir": Held(
        f"{LAUNCH}test_a_mistake_is_one_line_and_exit_code_2_and_compiles_nothing"
    ),
    "data.image_shape": Case((10, 8, 1)),
    "data.train_split": Case("train[:500]", off={"data.name": "npz:/x.npz"}),
    "data.eval_name": Held(
        f"{JUDGE}test_a_classifier_learns_from_samples_and_is_tested_on_real_images"
    ),
    "data.eval_split": Case("train[:500]"),
    "data.pixels": Case("symmetric"),
    "data.flip": Case("random"),
    "data.crop_padding": Case(2),
    "data.on_device": Held(
        f"{PARALLEL}test_accumulation_residence_and_several_steps_a_call_change_nothing"
    ),
    "data.loader": Case("grain"),
    "data.num_workers": Held(
        "tests/data/test_stream.py::test_any_number_of_workers_gives_the_batches_of_the_array"
    ),
    "data.bad_images": Held("tests/data/test_dataset.py::test_an_unreadable_picture_is_named"),
    "eval.batch_size": Held(f"{CONTRACT}test_evaluation_does_not_depend_on_its_batch_size"),
    "eval.num_samples": Case(10),
    "eval.num_samples_in_loop": Case(10),
    "eval.seed": Case(on=JUDGED),
    "eval.net": Held(f"{JUDGE}test_mistakes_are_told_before_anything_runs"),
    "eval.resize": Held(f"{INCEPTION}test_resizing_is_bilinear_at_the_references_positions"),
    "eval.reference": Case("eval", on=JUDGED),
    "eval.metrics": Case(("kd",), on=JUDGED),
    "sample.num": Held(f"{CONTRACT}test_a_sampler_of_classes_takes_all_in_turn_or_one"),
    "sample.seed": Held(f"{CONTRACT}test_image_i_of_a_seed_is_one_image"),
    "sample.batch_size": Held(f"{CONTRACT}test_image_i_of_a_seed_is_one_image"),
    "sample.label": Held(f"{CONTRACT}test_a_sampler_of_classes_takes_all_in_turn_or_one"),
    "checkpoint.keep_last": Held(CHECKPOINTS),
    "checkpoint.keep_every": Held(CHECKPOINTS),
    "checkpoint.best_metric": Held(CHECKPOINTS),
    "checkpoint.best_mode": Held(CHECKPOINTS),
    "nonfinite.policy": Case("skip"),
    "nonfinite.limit": Held("tests/runner/test_nonfinite.py::test_skipping_has_a_limit"),
    "requeue_exit_code": Held(f"{LAUNCH}test_a_running_run_is_left_alone_and_a_signal_saves_it"),
    "profile.start_step": Held(f"{CONTRACT}test_a_profile_is_written_on_request"),
    "profile.num_steps": Held(f"{CONTRACT}test_a_profile_is_written_on_request"),
}

# Fields without an effect where another test holds the effect.
IDLE = {
    "data.data_dir": Case("x", off={"data.name": "folder:/x"}),
    "data.on_device": Case(off={"data.loader": "grain"}),
    "data.num_workers": Case(),
    "data.bad_images": Case("skip"),
    "eval.net": Case("inception"),
    "eval.resize": Case("torch", off={"eval.net": "cnn_mnist", "eval.num_samples": 10}),
    "checkpoint.keep_every": Case(off={"checkpoint_every_steps": 0}),
    "checkpoint.best_metric": Case("eval/mse", off={"eval_every_steps": 0}),
    "checkpoint.best_mode": Case("max"),
    "nonfinite.limit": Case(),
    "profile.start_step": Case(),
}


class Noise(Family):
    """Draws noise about one number, which it learns."""

    def __init__(self, image_shape):
        self.image_shape = image_shape

    def init(self, key, images=None):
        return {"mean": jnp.zeros((2, 2))}, {}

    def loss(self, params, model_state, batch, rngs, train=True):
        return jnp.mean((batch["image"] - jnp.mean(params["mean"])) ** 2), ({}, model_state)

    def evaluate(self, params, model_state, batch, rngs):
        return {"mse": jnp.mean(batch["image"] ** 2, (1, 2, 3))}

    def sample(self, params, model_state, keys):
        return jnp.mean(params["mean"]) + rng.uniform(keys, self.image_shape)


@pytest.fixture
def noise(monkeypatch):
    """Makes configs of a family that has no fields of its own."""
    module = types.ModuleType("some_noise")
    module.FIELDS, module.smoke = {}, lambda config: {}
    module.default_config = lambda: make_config("noise", {})
    module.build = lambda config, image_shape, class_names: Noise(image_shape)
    monkeypatch.setitem(sys.modules, "some_noise", module)
    monkeypatch.setitem(experiments.FAMILIES, "noise", "some_noise")

    def config(**overrides):
        config = make_config("noise", {})
        config.update_from_flattened_dict(overrides)
        return config

    return config


def description(config):
    """Describes a run: what it trains with, on which data, and what its judge compares."""
    run = Run.build(config)
    data = [
        (type(x).__name__, x.split, x.fingerprint, len(x)) for x in (run.train_data, run.eval_data)
    ]
    parts = {k: v for k, v in vars(run).items() if k not in ("train_data", "eval_data")}
    judged = None
    if run.judge:
        images = next(SampleJudge(run)._batches((run.init().params, {}), 2, never))
        judged = run.judge.names(10), run.judge.reference.split, described(images)
    requested = config.eval.num_samples, config.eval.num_samples_in_loop
    return described(parts), data, judged, requested


ALL = [x[1:] for x in leaves(FIELDS)]


@pytest.mark.parametrize("key,declared", ALL, ids=[key for key, _ in ALL])
def test_a_field_changes_a_run_or_is_refused(noise, key, declared):
    case = CASES.get(key, Case())
    if isinstance(case, Held):
        assert held(case.test)
    else:
        value = another(declared) if case.value is None else case.value
        before, after = noise(**case.on), noise(**{**case.on, key: value})
        assert description(before) != description(after)
    if declared.only_with:
        case = case if isinstance(case, Case) else IDLE[key]
        value = another(declared) if case.value is None else case.value
        with pytest.raises(UserError, match=rf"config\.{key}=") as info:
            check_idle(noise(**{**case.off, key: value}), FIELDS)
        assert "\n" not in str(info.value)
