import fcntl
import json
import os
import platform
import signal
import subprocess
import threading
import time

import pytest

from genjax import files
from genjax.errors import UserError
from genjax.train import lock
from genjax.train.lock import locked

HOLD = """
import sys, time
from genjax.train.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_told_who_is_first(start, tmp_path):
    process = start(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid} on {platform.node()}"):
        with locked(tmp_path):
            pass
    messages = []
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path, messages.append):  # the first one is dead: its lock is stale
        pass
    assert len(messages) == 1 and f"process {process.pid} " in messages[0]
    with locked(tmp_path, messages.append):  # this one was given back
        pass
    assert len(messages) == 1


def test_a_damaged_lock_file_is_no_lock(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 12')
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("host,pid,refused", [("here", "own", True), ("here", "dead", False),
                                              ("elsewhere", "dead", True)])  # fmt: skip
def test_without_locks_of_the_file_system_the_process_is_asked(
    monkeypatch, tmp_path, host, pid, refused
):
    def flock(*args):
        raise OSError(lock.errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)
    dead = subprocess.Popen(["true"])
    dead.wait()
    holder = {
        "pid": os.getpid() if pid == "own" else dead.pid,
        "host": platform.node() if host == "here" else "elsewhere",
    }
    (tmp_path / ".lock").write_text(json.dumps(holder))
    if refused:
        with pytest.raises(UserError, match="in use by .*if it is gone, delete .*.lock"):
            with locked(tmp_path):
                pass
    else:
        with locked(tmp_path):
            pass


def test_of_two_that_come_together_without_locks_one_goes_on(monkeypatch, tmp_path):
    def flock(*args):
        raise OSError(lock.errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(lock, "_is_running", lambda holder: False)  # neither had written yet
    meeting, outcomes = threading.Barrier(8), []

    def run():
        meeting.wait()
        try:
            with locked(tmp_path, lambda text: None):
                outcomes.append("held")
                time.sleep(1.0)
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("held") == 1 and len(outcomes) == 8
    assert all("in use by" in text for text in outcomes if text != "held")


def test_a_wrong_clock_takes_no_file_away(tmp_path, monkeypatch):
    """The times of files are those of the server, which may be hours off."""
    partial = tmp_path / ".report.json.1.partial"
    partial.write_text("being written")
    monkeypatch.setattr(time, "time", lambda: 1e10)
    files.sweep(tmp_path)
    assert partial.exists()
    os.utime(partial, (0, 0))
    files.sweep(tmp_path)
    assert not partial.exists() and not list(tmp_path.iterdir())


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir=.*/file/run cannot be written: Not a dir"):
        with locked(tmp_path / "file" / "run"):
            pass
