import os
import signal
import time

import pytest

from genjax.train.signals import SIGNALS, StopOnSignal

LISTENING = """
import sys, time
from genjax.train.signals import StopOnSignal

with StopOnSignal() as signals:
    signals.something_to_save = sys.argv[1] == "something"
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_a_signal_is_a_request(signum):
    before = signal.getsignal(signum)
    with StopOnSignal() as signals:
        signals.something_to_save = True
        assert not signals.stop(1)
        os.kill(os.getpid(), signum)
        deadline = time.time() + 10
        while not signals.stop(2) and time.time() < deadline:
            time.sleep(0.01)
        assert signals.received == signum.name
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize("first", ["something", "nothing"])
def test_the_second_one_ends_at_once_and_so_does_the_first_with_nothing_to_save(start, first):
    process = start(LISTENING, first)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    if first == "something":
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 128 + signal.SIGINT
        assert "SIGTERM: saving after this step" in process.stderr.read()
    else:
        assert process.wait(10) == 128 + signal.SIGTERM
        assert "nothing to save" in process.stderr.read()


def test_a_signal_is_heard_while_the_main_thread_is_in_c(start):
    """As in a compilation: Python's own handlers would wait until it is over, minutes here."""
    process = start(
        """
import hashlib
from genjax.train.signals import StopOnSignal

with StopOnSignal():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopOnSignal() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.2)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
