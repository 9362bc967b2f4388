"""A run that was stopped and started again ends as one that was not, to the bit."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from genjax.errors import UserError
from genjax.runner.config import changed_keys, moved_keys
from genjax.runner.fields import field, flatten, named_files
from genjax.runner.figures import Drawer
from genjax.runner.restore import restored_run
from genjax.runner.run import Run
from genjax.runner.train import train as train_run
from genjax.train.checkpoint import Checkpoints
from genjax.train.signals import StopOnSignal

SOURCE = {"config_file": "configs/vae_digits.py:smoke", "arguments": ""}
STEPS = 21
# Before the first save (every 6 steps), at one, at an evaluation (every 7), just before and after.
STOPS = (5, 7)
MORE_STOPS = (6, 20)


@pytest.fixture
def config(smoke_config):
    def make(**overrides):
        values = {
            "num_train_steps": STEPS,
            "batch_size": 8,
            "log_every_steps": 1,
            "eval_every_steps": 7,
            "sample_every_steps": 0,
            "checkpoint_every_steps": 6,
            "ema.decay": 0.9,
            "optim.schedule": "cosine",
            "optim.accumulate_steps": 2,
            "optim.clip_norm": 1.0,
            "data.flip": "random",
        }
        return smoke_config(**{**values, **overrides})

    return make


@pytest.fixture
def train(monkeypatch):
    """Trains, stopping after the step asked for as a signal would."""

    def go(config, workdir, stop_at=None):
        def stop(signals, step):
            if step == stop_at:
                signals.received = signal.Signals.SIGTERM.name
            return step == stop_at

        monkeypatch.setattr(StopOnSignal, "stop", stop)
        # Figures are no part of a state, and take a third of the time.
        monkeypatch.setattr(Drawer, "__call__", lambda *args: True)
        report = train_run(config, workdir, SOURCE)
        assert (report is None) == (stop_at is not None)
        return report

    return go


@pytest.fixture
def final_state(config):
    """Every leaf of a workdir's newest checkpoint, by name, as bytes."""
    template = jax.eval_shape(Run.build(config()).init)

    def values(x):
        return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    def read(workdir):
        state, _ = Checkpoints(workdir / "checkpoints").restore(template)
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(p): np.asarray(values(x)).tobytes() for p, x in leaves}

    return read


@pytest.mark.parametrize("stops", [STOPS, pytest.param(MORE_STOPS, marks=pytest.mark.long)])
def test_a_clean_stop_resumes_bit_for_bit(stops, config, train, final_state, tmp_path):
    train(config(), tmp_path / "whole")
    expected = final_state(tmp_path / "whole")
    metrics = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len(metrics.splitlines()) == STEPS + 3  # three evaluations
    assert any("ema" in name for name in expected) and any("opt_state" in n for n in expected)

    equal = []
    for stop_at in stops:
        workdir = tmp_path / f"stopped_{stop_at}"
        train(config(), workdir, stop_at=stop_at)
        train(config(), workdir)
        same_metrics = (workdir / "metrics.jsonl").read_bytes() == metrics
        equal.append(same_metrics and final_state(workdir) == expected)
    assert equal == [True] * len(stops)


@pytest.mark.long
def test_stops_again_and_again(config, train, final_state, tmp_path):
    train(config(), tmp_path / "whole")
    for stop_at in (2, 3, 9, 10):
        train(config(), tmp_path / "often", stop_at=stop_at)
    train(config(), tmp_path / "often")
    assert final_state(tmp_path / "often") == final_state(tmp_path / "whole")
    read = lambda name: (tmp_path / name / "metrics.jsonl").read_bytes()
    assert read("often") == read("whole")


@pytest.mark.long
def test_other_seeds_end_elsewhere_and_the_same_seed_does_not(config, train, final_state, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(seed=seed, num_train_steps=3), tmp_path / name)
    assert final_state(tmp_path / "a") == final_state(tmp_path / "b")
    assert final_state(tmp_path / "a") != final_state(tmp_path / "c")


def test_more_steps_may_follow_and_a_changed_config_may_not(config, train, final_state, tmp_path):
    options = {"optim.schedule": "constant", "eval_every_steps": 0}
    train(config(num_train_steps=4, **options), tmp_path / "run")
    with pytest.raises(UserError, match="config.optim.lr: 0.002 there, 0.5 now") as error:
        train(
            config(num_train_steps=8, **options, **{"optim.lr": 0.5, "seed": 3}), tmp_path / "run"
        )
    assert "config.seed: 0 there, 3 now" in str(error.value)
    report = train(config(num_train_steps=8, log_every_steps=2, **options), tmp_path / "run")
    assert report["step"] == 8
    train(config(num_train_steps=8, **options), tmp_path / "whole")
    assert final_state(tmp_path / "run") == final_state(tmp_path / "whole")
    with pytest.raises(UserError, match="at step 8 already"):
        train(config(num_train_steps=6, **options), tmp_path / "run")


def test_a_schedule_that_looks_ahead_may_not_be_stretched(config, train, tmp_path):
    train(config(num_train_steps=4), tmp_path)
    with pytest.raises(UserError, match="num_train_steps: 4 there, 8 now .*schedule=cosine"):
        train(config(num_train_steps=8), tmp_path)


@pytest.mark.parametrize("loader", ["array", "grain"])
def test_data_may_move_and_its_checksum_decides(config, train, tmp_path, loader):
    rng, here, there = np.random.default_rng(0), tmp_path / "here", tmp_path / "there"
    for i in range(20):
        path = here / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)).save(path)

    def at(folder, loader=loader):
        data = {"data.name": f"folder:{folder}", "data.loader": loader}
        return config(num_train_steps=1, eval_every_steps=0, **data)

    workdir = tmp_path / "run"
    train(at(here), workdir)
    shutil.copytree(here, there, copy_function=shutil.copyfile)
    shutil.rmtree(here)
    assert restored_run(at(there), workdir, "latest")[2] == 1
    other = {"array": "grain", "grain": "array"}[loader]
    with pytest.raises(UserError, match="at another path .* does not know its checksum"):
        restored_run(at(there, other), workdir, "latest")
    content = (workdir / "config.json").read_text()
    Image.fromarray(255 - np.asarray(Image.open(there / "b" / "1.png"))).save(there / "b" / "1.png")
    for lost in (False, True):
        if lost:  # the checkpoint knows its data by itself
            known = json.loads(content)
            del known["data"]
            known["config"]["data"]["name"] = f"folder:{there}"
            (workdir / "config.json").write_text(json.dumps(known))
        with pytest.raises(UserError, match="has changed on disk since"):
            restored_run(at(there), workdir, "latest")


def test_which_fields_are_paths_of_data():
    old = {
        "data.name": "folder:/a",
        "data.eval_name": "",
        "style": "a.jpg",
        "weights": "x",
        "lr": 1,
    }
    files = {"data.name": "dataset", "data.eval_name": "dataset"}
    files |= {"style": "picture", "weights": "frozen"}
    for new, moved, changed in (
        ({"data.name": "folder:/b", "style": "b.jpg", "weights": "y"}, 3, 0),
        ({"data.name": "npz:/a"}, 0, 1),
        ({"data.name": "mnist", "data.eval_name": "folder:/b"}, 0, 2),
        ({"data.name": "folder:/b", "lr": 2}, 1, 1),
    ):
        new = {**old, **new}
        assert len(moved_keys(old, new, files)) == moved
        assert len(changed_keys(old, new, files=files)) == changed


def test_a_families_own_picture_may_move_and_what_it_only_calls_so_may_not():
    fields = {"drawing": field("", names="picture"), "style": field("x")}
    config = ConfigDict({"drawing": "b", "style": "y"})
    files = named_files(config, fields)
    assert files == {"drawing": "picture"}
    old = {"drawing": "a", "style": "x"}
    assert changed_keys(old, flatten(config), files=files) == {"style": ("x", "y")}


def test_a_checkpoint_knows_its_config_by_itself(config, train, tmp_path):
    train(config(num_train_steps=4), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="step 4 in .*config.optim.lr: 0.002 there, 0.5 now"):
        train(config(num_train_steps=4, **{"optim.lr": 0.5}), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json is damaged"):
        train(config(num_train_steps=4), tmp_path)


def test_the_best_step_stays_the_best_when_a_stop_came_before_its_evaluation(
    config, train, tmp_path
):
    options = {"checkpoint.best_metric": "eval/neg_elbo_nats", "checkpoint.keep_last": 1}
    options |= {"eval_every_steps": 4, "checkpoint_every_steps": 4, "num_train_steps": 12}
    steps = lambda name: Checkpoints(tmp_path / name / "checkpoints", read_only=True).steps()
    # The best is not the last: at its end the learning rate only harms this network.
    options |= {"model.name": "conv", "model.encoder_features": (4, 8)}
    options |= {"model.decoder_features": (8, 4), "model.encoder_hidden": 8}
    options |= {"optim.lr": 0.9, "optim.schedule": "constant", "optim.clip_norm": 0.0}
    train(config(**options), tmp_path / "whole")
    assert len(steps("whole")) == 2
    for stop_at in (4, 8):  # at 4 before its evaluation, and once more after it
        train(config(**options), tmp_path / "stopped", stop_at=stop_at)
    train(config(**options), tmp_path / "stopped")
    assert steps("stopped") == steps("whole")


def test_a_damaged_report_is_written_again(config, train, tmp_path):
    first = train(config(num_train_steps=3), tmp_path)
    (tmp_path / "report.json").write_text("{")
    again = train(config(num_train_steps=3), tmp_path)
    assert first["eval/neg_elbo_nats"] == again["eval/neg_elbo_nats"]


def test_a_workdir_that_is_a_file(config, train, tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in ("file", "file/below/it"):
        with pytest.raises(UserError, match="/file is a file; choose another"):
            train(config(), tmp_path / workdir)


def test_a_finished_run_started_again_only_reports_again(config, train, tmp_path, capsys):
    first = train(config(num_train_steps=3), tmp_path)
    (tmp_path / "report.json").unlink()
    again = train(config(num_train_steps=3), tmp_path)
    assert "resuming" in capsys.readouterr().err
    scores = lambda report: {k: v for k, v in report.items() if k.startswith("eval/")}
    assert scores(first) == scores(again) and (tmp_path / "report.json").exists()
