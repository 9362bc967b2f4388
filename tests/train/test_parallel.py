import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.devices import scan
from genjax.errors import UserError
from genjax.train.parallel import Parallel

# The real VAE, at smoke size, trained in several ways one after another; a line of JSON for each.
LOSSES = """
import json, sys
import jax, numpy as np
from configs import vae_digits
from genjax.runner import datasets
from genjax.runner.run import Run
from genjax.data.dataset import train_batches

def losses(kind, devices, steps=100, accumulate=1, resident=False, per_call=1):
    config = vae_digits.get_config("smoke")
    config.parallel, config.num_devices = kind, devices
    config.optim.accumulate_steps = accumulate
    config.ema.decay = 0.99
    dense = {"name": "mlp", "encoder_features": (8,), "decoder_features": (8,)}
    config.model.update(**dense, encoder_hidden=16)  # fsdp cuts the kernels at the pixels
    run = Run.build(config)
    p = run.parallel
    shapes = jax.eval_shape(run.init)
    step_fn = p.compile_train_step(run.train_step, shapes, per_call)
    state = p.init(run.init)
    batch_at = train_batches(run.train_data, config.batch_size, config.seed)
    whole = ()
    if resident:
        whole = (p.replicate(datasets.resident(run.train_data)),)
    losses = []
    for step in range(0, steps, per_call):
        batches = [batch_at(s) for s in range(step, step + per_call)]
        if resident:
            batches = [{k: b[k] for k in ("index", "slot")} for b in batches]
        batch = batches[0] if per_call == 1 else jax.tree.map(lambda *x: np.stack(x), *batches)
        state, (metrics, _) = step_fn(state, p.shard(batch, stacked=per_call > 1), *whole)
        losses.append(float(np.ravel(p.fetch(metrics)["loss"])[-1]))
    ema = jax.tree.leaves(p.to_local(state.ema_params))
    held = [x.addressable_shards[0].data.size for x in jax.tree.leaves(state)]
    return {
        "losses": losses,
        "ema": sum(float(abs(np.asarray(x)).sum()) for x in ema),
        "devices": len(state.step.sharding.device_set),
        "held": sum(size for size in held if size > 1),  # by one device
    }

for arguments in json.loads(sys.argv[1]):
    print(json.dumps(losses(*arguments)), flush=True)
"""


@pytest.fixture
def losses(python):
    """Each argument a tuple: kind, devices, steps, accumulate, resident, per_call."""

    def run(*runs):
        out = python(LOSSES, json.dumps(runs), devices=8)
        assert out.returncode == 0, out.stderr
        results = [json.loads(line) for line in out.stdout.splitlines()]
        assert [r["devices"] for r in results] == [devices for _, devices, *_ in runs]
        return results

    return run


def relative(a, b):
    return max(abs(x - y) / abs(x) for x, y in zip(a["losses"], b["losses"], strict=True))


def test_one_and_eight_devices_agree_whatever_the_kind_and_each_repeats_itself(losses):
    others = [("jit", 8), ("pmap", 8), ("fsdp", 8)]
    reference, *results = losses(("jit", 1, 60), *[(*x, 60) for x in others for _ in range(2)])
    assert reference["losses"][-1] < 0.95 * reference["losses"][0]  # it does learn
    assert results[::2] == results[1::2]  # bit for bit
    for (kind, devices), result in zip(others, results[::2], strict=True):
        assert relative(reference, result) < 1e-4, (kind, devices)  # rounding, over 60 steps
        assert abs(result["ema"] / reference["ema"] - 1) < 1e-5
        # Of 4 copies (parameters, two moments, average) of 784 x 8 in two kernels, an eighth each.
        cut = 4 * 2 * 6272 * 7 // 8 if kind == "fsdp" else 0
        assert reference["held"] - result["held"] == cut, (kind, devices)


COLLECTIVES = """
import json, math, sys
import jax
from benchmarks.compile_table import config_of
from genjax.runner.ahead import programs, run_without_data
from genjax.train.parallel import Parallel
from genjax.train.programs import collectives_of

for name in sys.argv[1:]:
    run = run_without_data(config_of(name), Parallel.create("fsdp"))
    step, shapes = programs(run)["step"]
    found = collectives_of(step.lower(*shapes).compile().as_text())
    params = jax.eval_shape(run.init).params
    places = jax.tree.leaves(run.parallel.shardings(params))
    sizes = [4 * x.size for x in jax.tree.leaves(params)]
    cut = [n for n, place in zip(sizes, places) if not place.is_fully_replicated]
    print(json.dumps([found, sum(cut), len(cut), sum(sizes)]), flush=True)
"""


def test_fsdp_moves_parameters_and_gradients_but_no_activations(python):
    """ZeRO (Rajbhandari et al. 2020): parameters are gathered, gradients are summed.

    The partitioner is every backend's; XLA:CPU alone sums whole gradients and cuts the sum.
    """
    out = python(COLLECTIVES, "vae_mnist", devices=8)
    assert out.returncode == 0, out.stderr
    found, cut, arrays, size = json.loads(out.stdout)
    assert found.keys() == {"all-gather", "all-reduce"}
    assert found["all-gather"] == {"count": arrays, "bytes": cut} and cut > 0.9 * size
    assert size <= found["all-reduce"]["bytes"] < size + 8192  # and the metrics


@pytest.mark.long
def test_accumulation_residence_and_several_steps_a_call_change_nothing(losses):
    # Of pmap, which divides the most; and accumulating under jit.
    whole, jit, parts, called = losses(
        ("pmap", 2, 12), ("jit", 2, 12, 2), ("pmap", 2, 12, 2), ("pmap", 2, 12, 1, True, 3)
    )
    assert relative(whole, jit) < 1e-5
    assert relative(whole, parts) < 1e-5
    assert relative({"losses": whole["losses"][2::3]}, called) < 1e-5


@pytest.mark.parametrize("length", [1, 3])
def test_scan_is_lax_scan_without_a_loop_on_cpu(length):
    def body(carry, x):
        return {"sum": carry["sum"] + x["a"], "last": x["b"]}, (x["a"] * carry["sum"], x["b"])

    xs = {"a": jnp.arange(1.0, length + 1), "b": jnp.ones((length, 2))}
    carry = {"sum": jnp.ones(()), "last": jnp.zeros(2)}
    jax.tree.map(
        np.testing.assert_array_equal, scan(body, carry, xs), jax.lax.scan(body, carry, xs)
    )
    compiled = jax.jit(lambda carry, xs: scan(body, carry, xs)).lower(carry, xs)
    assert "while" not in compiled.as_text()


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match="num_devices=99"):
        Parallel.create("jit", 99)


def test_maps_give_rows_back_in_order(python):
    code = """
import jax.numpy as jnp, numpy as np
from genjax.train.parallel import KINDS, Parallel
for kind in KINDS:
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
