"""Text for the user on streams that fail in every way that a stream can."""

import io
import os
import pty
import subprocess
import sys
import threading
import time

import pytest

from genjax import messages
from tests.conftest import ROOT


def broken_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


def closed_terminal():
    master, slave = pty.openpty()
    os.close(master)
    return slave


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "nobody reads": lambda: os.fdopen(broken_pipe(), "w"),
    "the terminal is closed": lambda: os.fdopen(closed_terminal(), "w"),
    "the disk is full": lambda: open("/dev/full", "w"),
    "closed": closed,
    "not there": lambda: None,
    "without attributes": object,
    "read only": lambda: open("/dev/null"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_no_stream_makes_a_message_raise(name, monkeypatch):
    stream = STREAMS[name]()
    for each in (stream, messages.Surviving(stream)):
        monkeypatch.setattr(sys, "stderr", each)
        messages.write_line("text")
        messages.write_line("more \udcff text")
        print("so does print", file=messages.Surviving(each), flush=True)
    messages.Surviving(stream).isatty()


def test_what_an_encoding_lacks_is_written_in_another_way(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    monkeypatch.setattr(sys, "stderr", stream)
    messages.write_line("caf\u00e9 \udce9")
    assert stream.buffer.getvalue() == b"caf\\xe9 \\udce9\n"


def test_a_stopped_reader_does_not_stop_the_run_and_gets_later_lines(monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(messages, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w"))
    began = time.monotonic()
    for _ in range(500):  # 500 kB into a pipe of 64 kB
        messages.write_line("x" * 999)
    assert time.monotonic() - began < 2
    while len(os.read(read, 2**16)) == 2**16:
        pass
    messages.write_line("later")
    assert os.read(read, 100).endswith(b"later\n")


def test_a_slow_reader_loses_nothing(monkeypatch):
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w"))
    parts = []

    def slow():
        while part := os.read(read, 5000):
            parts.append(part)
            time.sleep(0.001)

    thread = threading.Thread(target=slow)
    thread.start()
    for i in range(300):
        messages.write_line(f"{i:0999d}")
    sys.stderr.close()
    thread.join()
    assert b"".join(parts) == b"".join(f"{i:0999d}\n".encode() for i in range(300))


PROGRAM = """
import sys
from genjax.errors import RunError
from genjax.runner.command import run_main
def main(argv):
    for _ in range(3):
        print("a result"), print("a message", file=sys.stderr)
    if "fail" in argv: raise RunError("one line")
    if "crash" in argv: raise RuntimeError("a traceback")
    if "exit" in argv: sys.exit(75)
run_main(main)
"""


@pytest.mark.parametrize("argument, code", [("", 0), ("fail", 1), ("crash", 1), ("exit", 75)])
@pytest.mark.parametrize("how", ["nobody reads", "closed"])
def test_the_exit_code_does_not_depend_on_the_streams(argument, code, how):
    redirect = "2>&- >&- <&-" if how == "closed" else ""
    command = f'exec "$0" -c "$1" {argument} {redirect}'
    pipe = broken_pipe()
    process = subprocess.run(
        ["bash", "-c", command, sys.executable, PROGRAM], cwd=ROOT, stdout=pipe, stderr=pipe
    )
    os.close(pipe)
    assert process.returncode == code
