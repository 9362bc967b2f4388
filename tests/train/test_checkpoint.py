import hashlib
import json

import jax
import jax.numpy as jnp
import optax
import pytest

from genjax.errors import UserError
from genjax.train.checkpoint import Checkpoints
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


def test_what_does_not_fit_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, make_state(3), {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(
        UserError, match=r"params\['w'\] is bfloat16\[4, 3\] there, .*\[4, 5\] here"
    ):
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
