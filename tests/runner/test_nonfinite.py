"""A NaN in the middle of a run: found at its step, named, and dealt with as the config says."""

import json

import jax.numpy as jnp
import pytest

from genjax.data.dataset import train_batches
from genjax.data.transforms import Transform
from genjax.errors import RunError
from genjax.runner.run import Run
from genjax.runner.train import train
from genjax.train.logs import read_metrics
from genjax.train.signals import StopOnSignal

SOURCE = {"config_file": "a test", "arguments": ""}
BAD_STEP = 6  # from 1


@pytest.fixture
def config(smoke_config, monkeypatch):
    """A run in whose sixth batch lies an example that makes NaNs."""

    def make(policy, **overrides):
        values = {
            "num_train_steps": 12,
            "log_every_steps": 1,
            "eval_every_steps": 0,
            "sample_every_steps": 0,
            "checkpoint_every_steps": 4,
            "checkpoint.keep_last": 9,
            "optim.clip_norm": 1.0,
            "nonfinite.policy": policy,
        }
        return smoke_config(**{**values, **overrides})

    data = Run.build(make("raise")).train_data
    poison = int(train_batches(data, 16, 0)(BAD_STEP - 1)["index"][3])

    class Poisoned(Transform):
        def __call__(self, batch, rngs, train):
            out = super().__call__(batch, rngs, train)
            bad = (batch["index"] == poison).any() & train
            return {**out, "image": jnp.where(bad, jnp.nan, out["image"])}

    monkeypatch.setattr("genjax.runner.run.Transform", Poisoned)
    return make


def saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_raise_names_the_step_and_saves_nothing_of_it(config, tmp_path, kind):
    for _ in range(2):  # the same command again comes to the same end
        with pytest.raises(
            RunError, match=r"step 6: not finite: metrics\['.*\(examples \d"
        ) as info:
            train(config("raise", parallel=kind), tmp_path, SOURCE)
        assert "grads[" in str(info.value) or "more" in str(info.value)
        assert saved(tmp_path) == [4]
        assert max(line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")) < 6


def test_skip_leaves_the_update_out_and_counts(config, tmp_path, capsys):
    train(config("skip"), tmp_path, SOURCE)
    lines = {
        line["step"]: line
        for line in read_metrics(tmp_path / "metrics.jsonl")
        if "train/loss" in line
    }
    assert lines[6]["train/loss"] != lines[6]["train/loss"]  # NaN, null in the file
    assert '"train/loss": null' in (tmp_path / "metrics.jsonl").read_text()
    assert [lines[s]["train/skipped_steps"] for s in (5, 6, 12)] == [0, 1, 1]
    assert saved(tmp_path) == [4, 8, 12]
    assert "step 6: not finite" in capsys.readouterr().err


def test_a_run_that_leaves_out_every_step_says_so(smoke_config, tmp_path, capsys):
    values = {
        "num_train_steps": 4,
        "log_every_steps": 2,
        "eval_every_steps": 0,
        "sample_every_steps": 0,
        "checkpoint_every_steps": 2,
        "optim.skip_norm": 1e-9,
        "optim.warmup_steps": 2,
        "ema.decay": 0.9,
    }
    config = smoke_config(**values)
    train(config, tmp_path, SOURCE)
    lines = [x for x in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in x]
    assert [x["train/skipped_steps"] for x in lines] == [2, 4]
    assert [x["train/lr"] for x in lines] == [pytest.approx(config.optim.lr / 2)] * 2
    said = [x for x in capsys.readouterr().err.splitlines() if "are left out" in x]
    assert len(said) == 2 and "2 of the steps 3 to 4 are left out, 4 in all" in said[1]


def test_skipping_has_a_limit(config, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="step 7: not finite"):
        always = lambda self, batch, rngs, train: {**batch, "image": batch["image"] * jnp.nan}
        monkeypatch.setattr("genjax.runner.run.Transform.__call__", always)
        train(config("skip", **{"nonfinite.limit": 6}), tmp_path, SOURCE)


def test_rollback_goes_on_with_later_data_and_resumes_so(config, tmp_path, monkeypatch, capsys):
    train(config("rollback"), tmp_path / "whole", SOURCE)
    assert "back to step 4, continuing with later data" in capsys.readouterr().err
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [x["step"] for x in lines if "train/loss" in x] == list(range(1, 13))
    assert all(x.get("train/rollbacks") == (x["step"] > 4) for x in lines if "train/loss" in x)
    meta = json.loads((tmp_path / "whole/checkpoints/12/meta/metadata").read_text())
    extra = meta["body"]["extra"]
    assert (extra["data_offset"], extra["rollbacks"]) == (2, 1)

    def stop(signals, step):
        signals.received = "SIGTERM" if step == 7 else None
        return step == 7

    with monkeypatch.context() as patch:
        patch.setattr(StopOnSignal, "stop", stop)
        assert train(config("rollback"), tmp_path / "stopped", SOURCE) is None
    train(config("rollback"), tmp_path / "stopped", SOURCE)
    read = lambda name: (tmp_path / name / "metrics.jsonl").read_bytes()
    assert read("stopped") == read("whole")


def test_an_evaluation_that_is_not_finite_ends_the_run(config, tmp_path, monkeypatch):
    evaluator = lambda run: lambda tree, last, stop=None: ({"eval/kl_nats": float("inf")}, {})
    monkeypatch.setattr("genjax.runner.trainer.FullEvaluator", evaluator)
    with pytest.raises(RunError, match="step 4: not finite: eval/kl_nats .*policy=skip"):
        train(config("raise", eval_every_steps=4), tmp_path, SOURCE)
    assert saved(tmp_path) == []


def test_an_evaluation_that_is_not_finite_is_nobodys_best(config, tmp_path, monkeypatch, capsys):
    overrides = {"eval_every_steps": 4, "checkpoint.best_metric": "eval/kl_nats"}

    def evaluator(run):
        values = iter([1.0, float("nan"), 2.0])
        return lambda tree, last, stop=None: ({"eval/kl_nats": next(values)}, {})

    monkeypatch.setattr("genjax.runner.trainer.FullEvaluator", evaluator)
    options = {"checkpoint.keep_last": 1, **overrides}
    train(config("skip", **options), tmp_path, SOURCE)
    assert "step 8: not finite: eval/kl_nats" in capsys.readouterr().err
    assert saved(tmp_path) == [4, 12]
