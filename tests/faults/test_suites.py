"""The fault suites in their short form; the long ones are commands in the README."""

import signal
import subprocess
import sys

import pytest

from faults import corrupt, harness, kill, layouts, soak, troubles
from genjax.train.lock import locked
from tests.conftest import ROOT

# Short, and with few pictures; the first save comes at 10, the first retention at 30.
SHORT = {"num_train_steps": 44, "eval_every_steps": 22, "sample_every_steps": 0}


@pytest.mark.long
def test_kills_lose_nothing(tmp_path):
    expected = kill.reference(tmp_path, SHORT)
    assert len(expected) > 50
    row = kill.kill_at_point(tmp_path, SHORT, expected, "between write and commit")
    assert row[-1], row
    counts = kill.kill_at_random(tmp_path, SHORT, expected, kills=2, seed=0)
    assert counts["kills"] == 2 and counts["lost"] == counts["different"] == 0


def test_no_damage_is_believed(tmp_path):
    run = corrupt.train_run(tmp_path)
    trials = list(corrupt.trials(*run, bits=1, seed=0, every=3))
    assert {fault for fault, _ in trials} == set(corrupt.FAULTS) and len(trials) >= 16
    assert {outcome for _, outcome in trials} == {corrupt.ACCEPTED, corrupt.FELL_BACK}
    assert corrupt.refuses_if_all_are_bad(*run[:2])


def test_retention_keeps_exactly_what_it_should():
    command = [sys.executable, "-W", "ignore", "-m", "faults.retention", "--saves=30"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert out.returncode == 0, out.stdout + out.stderr


@pytest.mark.long
def test_two_processes_agree_with_one_which_takes_over(tmp_path):
    one, two = (1, 1), (2, 2)
    runs = [("jit", one), ("pmap", two), ("fsdp", two)]
    rows = layouts.agreement(tmp_path, 6, runs, repeats=1)
    assert [(*row[:2], row[2]) for row in rows] == [(*layout, kind) for kind, layout in runs]
    assert all(difference < 1e-5 for *_, difference, _ in rows), rows
    assert layouts.moved(tmp_path, 6, "fsdp", two, one) < 1e-5


def test_one_of_two_is_stopped_and_both_save_one_step(tmp_path):
    codes, saved, _ = layouts.signalled(tmp_path / "two", layouts.endless("jit"), signal.SIGTERM)
    assert codes == [75, 75] and len(saved) == 1
    assert harness.messages(tmp_path / "two").count("saved") == 1


@pytest.mark.long
def test_one_of_two_is_killed_and_the_same_command_goes_on(tmp_path):
    workdir, overrides = tmp_path / "two", layouts.often_saved("jit", 120)
    code, seconds = layouts.one_killed(workdir, overrides)
    assert code not in (0, None) and seconds < layouts.HEARTBEAT_SECONDS + 10
    layouts.finish(workdir, overrides, 2, 2)
    layouts.finish(tmp_path / "one", overrides)
    one, two = layouts.losses(tmp_path / "one"), layouts.losses(workdir)
    assert layouts.largest_difference(one, two) < 1e-4


def test_two_processes_that_are_refused_both_end_with_one_line(tmp_path):
    with locked(tmp_path / "run"):
        processes = layouts.start(tmp_path / "run", {}, 2, 1)
        assert [p.wait(timeout=100) for p in processes] == [2, 2]
    errors = [x for x in harness.messages(tmp_path / "run").splitlines() if "error:" in x]
    assert len(errors) == 2 and sum("in use by process" in x for x in errors) == 1


@pytest.mark.long
def test_a_long_run_stays_what_it_was(tmp_path):
    samples, compiled, code = soak.watch(tmp_path, 0.15, 10, every_seconds=1.0)
    assert code == 0 and compiled == [] and len(samples) > 5
    sizes = soak.summary(samples)
    assert sizes["temporary_files"]["last"] <= 3  # those of a save under way
    assert sizes["open_files"]["last"] <= sizes["open_files"]["first"] + 12


@pytest.mark.parametrize("name", troubles.DATA)
def test_a_folder_is_read_as_a_person_would(name, tmp_path):
    outcome, right = troubles.data_outcome(name, tmp_path)
    assert right, outcome


def test_other_data_is_right_or_refused(tmp_path):
    assert all(right for *_, right in troubles.other_outcomes(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("name", troubles.STREAMS)
def test_no_stream_ends_a_run(name, tmp_path):
    outcome, right = troubles.stream_outcome(name, tmp_path)
    assert right, outcome
