import json

import pytest

from genjax.errors import UserError
from genjax.train.parallel import Parallel

# The real VAE, at smoke size, for 100 steps on n devices; prints its losses as JSON.
LOSSES = """
import json, sys
import jax, numpy as np
from configs import vae_digits
from experiments.run import Run
from genjax.data.dataset import train_batches

kind, devices, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
accumulate, resident, per_call = (int(a) for a in sys.argv[4:7])
config = vae_digits.get_config("smoke")
config.parallel, config.num_devices = kind, devices
config.optim.accumulate_steps = accumulate
config.ema.decay = 0.99
run = Run.build(config)
p = run.parallel
step_fn = p.compile_train_step(
    run.train_step, jax.eval_shape(run.init), per_call, resident=bool(resident)
)
state = p.init(run.init)
batch_at = train_batches(run.train_data, config.batch_size, config.seed)
whole = ()
if resident:
    data = {"image": run.train_data.images, "label": run.train_data.labels}
    whole = (p.replicate(jax.tree.map(jax.numpy.asarray, data)),)
losses = []
for step in range(0, steps, per_call):
    batches = [batch_at(s) for s in range(step, step + per_call)]
    if resident:
        batches = [{k: b[k] for k in ("index", "slot")} for b in batches]
    batch = batches[0] if per_call == 1 else jax.tree.map(lambda *x: np.stack(x), *batches)
    state, (metrics, _) = step_fn(state, p.shard(batch, stacked=per_call > 1), *whole)
    losses.append(float(np.ravel(p.fetch(metrics)["loss"])[-1]))
ema = jax.tree.leaves(p.to_local(state.ema_params))
total = sum(float(abs(np.asarray(x)).sum()) for x in ema)
print(json.dumps({"losses": losses, "ema": total, "devices": len(state.step.sharding.device_set)}))
"""


@pytest.fixture
def losses(python):
    def run(kind, devices, steps=100, accumulate=1, resident=0, per_call=1):
        out = python(LOSSES, kind, devices, steps, accumulate, resident, per_call, devices=8)
        assert out.returncode == 0, out.stderr
        result = json.loads(out.stdout.splitlines()[-1])
        assert result["devices"] == devices
        return result

    return run


def relative(a, b):
    return max(abs(x - y) / abs(x) for x, y in zip(a["losses"], b["losses"], strict=True))


def test_one_and_eight_devices_under_jit_and_pmap_agree(losses):
    reference = losses("jit", 1)
    assert reference["losses"][-1] < 0.9 * reference["losses"][0]  # it does learn
    for kind, devices in (("pmap", 1), ("jit", 8), ("pmap", 8)):
        other = losses(kind, devices)
        assert relative(reference, other) < 1e-5, (kind, devices)
        assert abs(other["ema"] / reference["ema"] - 1) < 1e-5


def test_a_layout_repeats_itself_bit_for_bit(losses):
    assert losses("pmap", 8, steps=10) == losses("pmap", 8, steps=10)


def test_accumulation_residence_and_several_steps_a_call_change_nothing(losses):
    reference = losses("jit", 2, steps=12)
    for kind in ("jit", "pmap"):
        assert relative(reference, losses(kind, 2, steps=12, accumulate=2)) < 1e-5
        assert relative(reference, losses(kind, 2, steps=12, resident=1)) < 1e-5
        called = losses(kind, 2, steps=12, per_call=3, resident=1)
        last = {"losses": reference["losses"][2::3]}
        assert relative(last, called) < 1e-5


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match="num_devices=99"):
        Parallel.create("jit", 99)


def test_maps_give_rows_back_in_order(python):
    code = """
import jax.numpy as jnp, numpy as np
from genjax.train.parallel import Parallel
for kind in ("jit", "pmap"):
    p = Parallel.create(kind)
    fn = p.compile_map(lambda tree, batch: {"y": batch["x"] * tree["w"], "s": batch["x"].sum(-1)})
    x = np.arange(48, dtype=np.float32).reshape(16, 3)
    out = fn(p.replicate({"w": jnp.asarray(2.0)}), {"x": x})
    assert p.size == 8 and isinstance(out["y"], np.ndarray)
    np.testing.assert_array_equal(out["y"], 2 * x)
    np.testing.assert_array_equal(out["s"], x.sum(-1))
"""
    out = python(code, devices=8)
    assert out.returncode == 0, out.stderr
