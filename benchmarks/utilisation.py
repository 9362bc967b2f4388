"""Use of the device by a training step: model FLOP utilisation, images/s, memory.

FLOPs are those that XLA counts in the compiled step; the rate that they are divided by is that of
the largest square matrix product of the step's dtype, measured in the same process. Beside the
seconds of a step stands its roofline, the least that the maker's numbers of the device allow, where
they are known (`genjax/train/chips.py`).

python -m benchmarks.utilisation --config=configs/resnet18_cifar10.py [--steps=50]
"""

import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks.timing import seconds_of
from genjax.data.dataset import train_batches
from genjax.runner.command import run_main
from genjax.runner.family import completed
from genjax.runner.run import Run, set_up_process
from genjax.train.chips import chip_of, roofline_seconds
from genjax.train.programs import costs_of, flops_of, matrix_flops

DEFAULT = "configs/resnet18_cifar10.py"
CONFIG = config_flags.DEFINE_config_file("config", None, "The run; default: " + DEFAULT)
STEPS = flags.DEFINE_integer("steps", 50, "Steps that are timed.", lower_bound=1)


def matrix_rate(dtype: Any, side: int | None = None, repeats: int = 20) -> float:
    """Returns the FLOP/s of a product of two square matrices on one device.

    Args:
      dtype: of the matrices.
      side: of the matrices; by default large enough for the device.
      repeats: products that are timed together, the best of three times.
    """
    side = side or (1024 if jax.default_backend() == "cpu" else 8192)
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(a, a))

    def multiply():
        b = a
        for _ in range(repeats):
            b = product(a, b)
        jax.block_until_ready(b)

    return 2 * side**3 * repeats / min(seconds_of(multiply) for _ in range(3))


def measure(run: Run, steps: int) -> tuple[float, dict[str, float], int | None]:
    """Measures a step, dispatched alone whatever config.steps_per_call says.

    Of a loop XLA would count the body once.

    Returns:
      (seconds, costs of the program on one device, the most bytes that it held, if known).
    """
    config, parallel = run.config, run.parallel
    batch = train_batches(run.train_data, config.batch_size, config.seed)(0)
    batch = parallel.shard(batch)
    train_step = jax.jit(run.train_step, donate_argnums=0)
    state = run.init()
    traced = train_step.trace(state, batch)
    compiled = traced.lower().compile()
    state, _ = jax.block_until_ready(compiled(state, batch))
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - start) / steps
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return seconds, {**costs_of(compiled), "matrix_flops": matrix_flops(traced.jaxpr)}, memory


def main(argv: list[str]) -> None:
    """Measures the step of a config and prints the results."""
    del argv
    config = CONFIG.value
    set_up_process(config)
    config.parallel, config.num_devices = "jit", 1
    run = Run.build(completed(config))
    seconds, costs, memory = measure(run, STEPS.value)
    flops, kind = flops_of(costs, 1), run.parallel.devices[0].device_kind
    dtype = jnp.dtype(config.compute_dtype)
    rate = matrix_rate(dtype)
    report = {
        "device": kind,
        "jax": jax.__version__,
        "images_per_second": config.batch_size / seconds,
        "step_seconds": seconds,
        "step_flops": flops,
        "flops_per_second": flops / seconds,
        "matrix_flops_per_second": rate,
        "dtype": dtype.name,
        "utilisation": flops / seconds / rate,
        "peak_memory_bytes": memory,
        "parameters": int(sum(map(np.size, jax.tree.leaves(jax.eval_shape(run.init).params)))),
    }
    if chip := chip_of(kind):
        report["roofline_seconds"] = roofline_seconds(chip, flops, costs.get("bytes", 0))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    run_main(main, DEFAULT)
