import json

import jax.numpy as jnp

from genjax.train import logs


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    log = logs.MetricLog(tmp_path, 0)
    for step in (2, 4, 6):
        log.write(step, {"train/loss": 1 / step})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 8, "train/lo')  # a kill in the middle of a line
    log = logs.MetricLog(tmp_path, 4)
    log.write(6, {"train/loss": 0.5})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 2, "train/loss": 0.5},
        {"step": 4, "train/loss": 0.25},
        {"step": 6, "train/loss": 0.5},
    ]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_damaged_line_costs_no_other_and_the_file_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    bad = b'{"step": 2, "train/\xff\n[3]\n{"loss": 1}\n'
    path.write_bytes(b'{"step": 1}\n' + bad + b'{"step": 4}\n{"step": 5')
    messages = []
    logs.MetricLog(tmp_path, 9, messages.append).close()
    assert path.read_text() == '{"step": 1}\n{"step": 4}\n'
    assert (
        messages[0].startswith("3 lines of ")
        and bad in (tmp_path / "metrics.jsonl.damaged").read_bytes()
    )


def test_speed_is_never_negative():
    progress = logs.Progress(0, 10, 16, quiet=True)
    progress.restart(2)  # two steps in the first dispatch, `update` not yet called
    assert progress.images_per_second == 0
    progress.update(4)
    assert progress.images_per_second > 0
    progress.close()


def test_no_speed_is_told_before_a_step_was_timed(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])
    progress = logs.Progress(0, 1000, batch_size=16)
    now[0] += 60  # compiling
    progress.restart(1)
    progress.update(1, {"train/loss": 0.5})
    assert capsys.readouterr().err == "step 1/1000  loss 0.5\n"
    now[0] += 20
    progress.update(11, {"train/loss": 0.25})
    assert capsys.readouterr().err == "step 11/1000  8 images/s  1978 s left  loss 0.25\n"
    progress.close()


def test_the_parameter_table_counts():
    params = {
        "encoder": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
        "scale": jnp.zeros(()),
    }
    table = logs.parameter_table(params).splitlines()
    assert table[0].split()[0] == "encoder/bias" and table[1].split()[-1] == "12"
    assert table[-1].split() == ["total", "17"]


def test_the_environment_names_versions_and_devices():
    text = logs.environment(["launch.py", "--config=x"])
    for word in ("launch.py --config=x", "jax", "optax", "cpu", "commit"):
        assert word in text


def test_speed_counts_training_alone(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])
    progress = logs.Progress(0, 100, batch_size=10)
    now[0] += 50  # compiling
    progress.restart(1)
    now[0] += 2
    progress.update(11)
    assert progress.images_per_second == 50.0
    with progress.paused():
        now[0] += 1000
    now[0] += 2
    progress.update(21)
    assert progress.images_per_second == 50.0
    progress.close()
