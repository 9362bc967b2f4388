import errno
import hashlib
import json
import socket

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import genjax
from genjax.errors import RunError, UserError
from genjax.train import checkpoint
from genjax.train.checkpoint import Checkpoints, checksums
from genjax.train.state import Ema, init_state


def make_state(step=0, width=3):
    init = lambda key: ({"w": jax.random.normal(key, (4, width), jnp.bfloat16)}, {"n": jnp.ones(2)})
    state = init_state(step, init, optax.adam(1e-3).init, Ema(0.9))
    return state.replace(step=jnp.asarray(step, jnp.int32))


def equal(a, b):
    same = jax.tree.map(
        lambda x, y: x.dtype == y.dtype and bool((jax.numpy.asarray(x) == y).all()), a, b
    )
    return all(jax.tree.leaves(same))


def test_everything_comes_back_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = make_state(7)
    checkpoints.save(7, state, {"seed": 0})
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path).restore(jax.eval_shape(lambda: make_state(0)))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert equal(restored, state)


def test_training_on_does_not_change_what_is_being_saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    values = {"w": jnp.zeros((512, 512))}
    expected = {}
    for i in range(1, 6):
        values = step(values)
        expected[i] = float(i)
        checkpoints.save(i, values, {})
        values = step(step(values))
        values = jax.tree.map(lambda x: x - 2, values)
    checkpoints.close()
    assert float(Checkpoints(tmp_path).restore(values)[0]["w"].min()) == expected[5]
    assert float(Checkpoints(tmp_path).restore(values)[0]["w"].max()) == expected[5]


def test_retention_keeps_the_last_the_nth_and_the_best(tmp_path):
    options = dict(keep_last=2, keep_every=40, best_metric="eval/fd", best_mode="min")
    checkpoints = Checkpoints(tmp_path, **options)
    for step in range(10, 130, 10):
        metrics = {"eval/fd": abs(step - 50.0)} if step % 20 == 10 else None
        checkpoints.save(step, make_state(step), {}, metrics)
    checkpoints.close()
    reopened = Checkpoints(tmp_path, **options)
    assert reopened.steps() == [40, 50, 80, 110, 120] and reopened.best_step() == 50
    for step in reopened.steps():
        assert int(reopened.restore(make_state(), step)[0].step) == step
    maximum = Checkpoints(tmp_path, **{**options, "best_mode": "max"})
    assert maximum.best_step() == 110


def test_what_does_not_fit_is_named(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, make_state(3), {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(
        UserError, match=r"params\['w'\] is bfloat16\[4, 3\] there, .*\[4, 5\] here"
    ):
        checkpoints.restore(make_state(width=5))
    version = genjax.__version__
    with monkeypatch.context() as patch:
        patch.setattr("genjax.__version__", "9.9")
        with pytest.raises(UserError, match=f"genjax {version} wrote it and can"):
            checkpoints.restore(make_state(width=5))
    with pytest.raises(UserError, match="step 4 .* there are: 3"):
        checkpoints.restore(make_state(), 4)
    with pytest.raises(UserError, match="metric"):
        Checkpoints(tmp_path, best_metric="eval/fd").best_step()


def test_a_newer_format_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1), {})
    checkpoints.close()
    meta = tmp_path / "1" / "meta" / "metadata"
    body = {**json.loads(meta.read_text())["body"], "format": 99}
    text = json.dumps(body, sort_keys=True)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    meta.write_text(json.dumps({"sha256": sha256, "body": body}))
    with pytest.raises(UserError, match="newer"):
        Checkpoints(tmp_path).restore(make_state())


def test_the_config_is_inside(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1), {"optim": {"lr": 0.5}})
    checkpoints.close()
    meta = json.loads((tmp_path / "1" / "meta" / "metadata").read_text())
    assert meta["body"]["config"] == {"optim": {"lr": 0.5}}


def save_three(folder):
    checkpoints = Checkpoints(folder, keep_last=9)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {}, extra={"step": step})
    checkpoints.close()


def test_a_bad_one_is_passed_over_told_and_kept_aside(tmp_path):
    save_three(tmp_path)
    (tmp_path / "3" / "meta" / "metadata").write_text("{")
    messages = []
    reader = Checkpoints(tmp_path, read_only=True, warn=messages.append)
    assert reader.restore(make_state())[1]["extra"] == {"step": 2} and reader.steps() == [1, 2, 3]
    assert "step 3 is bad (left in place)" in messages[0]
    writer = Checkpoints(tmp_path, keep_last=9, warn=messages.append)
    state, meta = writer.restore(make_state())
    assert int(state.step) == 2 and meta["extra"] == {"step": 2}
    assert "step 3 is bad (moved to bad/)" in messages[1] and writer.steps() == [1, 2]
    writer.save(3, make_state(3), {})  # the number is free again
    writer.close()
    assert Checkpoints(tmp_path).steps() == [1, 2, 3]
    assert len(list((tmp_path / "bad").iterdir())) == 1


def test_a_step_that_was_asked_for_is_that_step_or_an_error(tmp_path):
    save_three(tmp_path)
    (tmp_path / "3" / "meta" / "metadata").write_text("{")
    with pytest.raises(RunError, match="no good checkpoint .*step 3: its meta data are damaged"):
        Checkpoints(tmp_path).restore(make_state(), 3)
    assert int(Checkpoints(tmp_path).restore(make_state(), 1)[0].step) == 1


def test_none_good_is_never_a_fresh_start(tmp_path):
    save_three(tmp_path)
    for step in (1, 2, 3):
        for path in (tmp_path / str(step) / "state").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    for _ in range(2):
        checkpoints = Checkpoints(tmp_path)
        with pytest.raises(RunError, match="step 3: .*step 2: .*step 1: ") as error:
            checkpoints.restore(make_state())
        assert error.value.exit_code == 1 and not checkpoints.empty()
    assert checkpoints.steps() == [1, 2, 3]
    (tmp_path / "bad").mkdir()
    for step in (1, 2, 3):  # even when somebody has tidied up
        (tmp_path / str(step)).rename(tmp_path / "bad" / str(step))
    assert not Checkpoints(tmp_path).empty()
    with pytest.raises(RunError, match="lie in bad/"):
        Checkpoints(tmp_path).restore(make_state())


def test_what_else_lies_in_the_folder_does_no_harm(tmp_path):
    save_three(tmp_path)
    (tmp_path / "4").write_text("a file")
    (tmp_path / "notes").mkdir()
    (tmp_path / "007").mkdir()
    (tmp_path / "9").symlink_to(tmp_path / "3")
    (tmp_path / "5.orbax-checkpoint-tmp").mkdir()  # a save that was killed
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "0-12").mkdir()  # a deletion that was killed
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.steps() == [1, 2, 3] and (tmp_path / "5.orbax-checkpoint-tmp").exists()
    writer = Checkpoints(tmp_path, keep_last=2)
    assert int(writer.restore(make_state())[0].step) == 3
    assert not (tmp_path / "5.orbax-checkpoint-tmp").exists()
    assert not (tmp_path / ".trash").exists()
    writer.save(6, make_state(6), {})
    writer.close()
    assert writer.steps() == [3, 6]
    assert {"4", "notes", "007", "9"} < {p.name for p in tmp_path.iterdir()}
    (tmp_path / "8").mkdir()  # an empty step: half of one that another tool copied
    messages = []
    assert int(Checkpoints(tmp_path, warn=messages.append).restore(make_state())[0].step) == 6
    assert "step 8 is bad" in messages[0]


def test_a_save_that_fails_is_told_and_the_next_one_counts(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoint, "SECONDS_AFTER_FAILURE", 0.0)
    checkpoints = Checkpoints(tmp_path, keep_last=9, warn=messages.append)
    checkpoints.save(1, make_state(1), {})
    checkpoints._finish()

    def full(*args, **kwargs):
        (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.AsyncCheckpointer, "wait_until_finished", full)
        checkpoints.save(2, make_state(2), {})
        checkpoints.poll()
    assert len(messages) == 1 and "step 2" in messages[0] and "the disk is full" in messages[0]
    assert not list(tmp_path.glob("*tmp*"))
    checkpoints.save(3, make_state(3), {})
    checkpoints.close()  # the last one is good: no error
    assert 3 in checkpoints.steps() and len(messages) == 1
    with monkeypatch.context() as patch:
        patch.setattr(ocp.AsyncCheckpointer, "save", full)
        checkpoints.save(4, make_state(4), {})
    with pytest.raises(RunError, match="step 4 could not be saved .*from step 3"):
        checkpoints.close()


def test_a_full_disk_in_earnest(tmp_path, python):
    """No file may grow beyond 20 kB: what a disk does when it is full, without filling one."""
    code = """
import resource, signal, sys
import jax.numpy as jnp
from genjax.errors import RunError
from genjax.train.checkpoint import Checkpoints, quiet_orbax

quiet_orbax()
messages = []
checkpoints = Checkpoints(sys.argv[1], keep_last=9, warn=messages.append)
checkpoints.save(1, {"w": jnp.zeros(10)}, {})
checkpoints.close()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
checkpoints.save(2, {"w": jnp.arange(10.0**5)}, {})
try:
    checkpoints.close()
except RunError as error:
    print(error)
print(checkpoints.steps(), len(messages))
print(int(checkpoints.restore({"w": jnp.zeros(10)})[0]["w"].sum()))
"""
    out = python(code, tmp_path)
    assert out.returncode == 0, out.stderr
    error, listed, value = out.stdout.splitlines()
    assert "step 2 could not be saved" in error and "goes on from step 1" in error
    assert listed == "[1] 1" and value == "0"
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool", "complex64"])
def test_a_checksum_sees_every_bit(dtype):
    x = np.zeros((3, 5), dtype=jnp.dtype(dtype))
    before = checksums({"x": jnp.asarray(x)})["['x']"]
    bits = x.view(np.uint8)
    after = set()
    for byte in range(bits.size):
        for bit in range(1 if dtype == "bool" else 8):
            flipped = x.copy()
            flipped.view(np.uint8).reshape(-1)[byte] ^= 1 << bit
            after.add(checksums({"x": jnp.asarray(flipped)})["['x']"])
    assert before not in after


def test_a_checksum_is_that_of_the_formula_and_sees_order():
    x = np.random.RandomState(0).randn(4, 3, 2).astype(np.float32)
    words = x.reshape(-1).view(np.uint32).astype(np.uint64)
    weights = (np.arange(24, dtype=np.uint64) * 2654435761 * 2 + 1) % 2**32
    assert checksums({"x": jnp.asarray(x)})["['x']"] == int((words * weights).sum() % 2**32)
    turned = jnp.asarray(x[::-1])
    assert checksums({"x": turned}) != checksums({"x": jnp.asarray(x)})


# Two processes. In the second one reading step 2 fails: in one folder its meta data, in another its
# state.
TWO = """
import sys
import jax, jax.numpy as jnp
from genjax.train import checkpoint
from genjax.train.parallel import Parallel, start_processes

process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
start_processes(f"localhost:{port}", 2, process, heartbeat_seconds=20)
checkpoint.quiet_orbax()
parallel = Parallel.create("fsdp")
make = lambda: {"w": jnp.arange(2.0**13)}
state = parallel.init(make)
def broken_meta(self, step, fn=checkpoint.Checkpoints._meta):
    if process == 1 and step == 2:
        raise OSError(5, "Input/output error")
    return fn(self, step)

def broken_state(path, target, fn=checkpoint._read_state):
    if process == 1 and path.parent.name == "2":
        raise OSError(5, "Input/output error")
    return fn(path, target)

def restored_when(owner, name, broken):
    messages = []
    checkpoints = checkpoint.Checkpoints(f"{folder}/{name}", keep_last=9, warn=messages.append)
    for step in (1, 2):
        checkpoints.save(step, jax.tree.map(lambda x: x + step, state), {})
    checkpoints.close()
    intact = getattr(owner, name)
    setattr(owner, name, broken)
    restored, meta = checkpoints.restore(parallel.template(jax.eval_shape(make)))
    setattr(owner, name, intact)
    print(meta["step"], float(parallel.to_local(restored)["w"][-1]), messages)

restored_when(checkpoint.Checkpoints, "_meta", broken_meta)
restored_when(checkpoint, "_read_state", broken_state)
"""


def test_what_one_process_cannot_read_none_restores(start, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [start(TWO, i, port, tmp_path) for i in (0, 1)]
    for i, process in enumerate(both):
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        for line in out.splitlines()[-2:]:
            step, last, messages = line.split(maxsplit=2)
            assert (int(step), float(last)) == (1, 2**13)
            assert "step 2 is bad (moved to bad/)" in messages
            assert ("Input/output error" if i else "another process cannot read") in messages
