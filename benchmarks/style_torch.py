"""A step of Gatys' optimisation, ours and PyTorch's, in turns.

The settings of configs/style_gatys.py, VGG-19 with the same random weights, the same pictures at
each size. Prints JSON: seconds per step (the best turn of each), the ratio of PyTorch's to ours
(above 1: ours is faster), the peak memory of each process up to that size, and both losses after
the same number of steps.

python -m benchmarks.style_torch [--torch_python=PYTHON] [--sizes=224,512] [--steps=3]
    [--turns=3]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import style_gatys
from experiments.style.style_transfer import complete
from genjax.files import user_path
from genjax.runner.command import run_main
from genjax.runner.run import Run, set_up_process
from genjax.style import pictures

TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python with PyTorch.")
SIZES = flags.DEFINE_list("sizes", ["224", "512"], "Longer sides, small ones first.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps of a turn.")
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each.")

Turn = tuple[float, float, float]  # seconds, the loss, peak memory in MB


class Torch:
    """The worker, torch_style.py.

    Args:
      folder: of its weights and pictures.

    Attributes:
      version: of PyTorch, and its device.
    """

    def __init__(self, folder: str):
        worker = str(Path(__file__).with_name("torch_style.py"))
        self._process = subprocess.Popen(
            [str(user_path(TORCH_PYTHON.value, "--torch_python")), worker, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready, _, self.version = self._process.stdout.readline().strip().partition(" ")
        if ready != "ready":
            raise SystemExit(f"{TORCH_PYTHON.value} cannot run {worker}")

    def steps(self, size: int, count: int) -> Turn:
        """Makes some steps at a size."""
        self._process.stdin.write(f"{size} {count}\n")
        self._process.stdin.flush()
        return tuple(map(float, self._process.stdout.readline().split()))


class Ours:
    """The compiled step of a run.

    Args:
      run: of one picture.
      vgg: parameters that replace the run's own.
    """

    def __init__(self, run: Run, vgg: Any):
        state = run.start()
        vgg = jax.tree.map(jnp.array, vgg)  # copies: the step takes over their buffers
        self._state = state.replace(model_state={**state.model_state, "vgg": vgg})
        self._step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
        batch = run.train_data.batch(np.zeros(1, int), np.zeros(1, int))
        self._batch = run.parallel.shard(batch)

    def steps(self, count: int) -> Turn:
        """Makes some steps."""
        start = time.perf_counter()
        for _ in range(count):
            self._state, (metrics, _) = self._step(self._state, self._batch)
        loss = float(metrics["loss"])
        return time.perf_counter() - start, loss, _peak_memory()


def _peak_memory():
    """Returns the peak memory of the device, or of this process, in MB."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def build_run(size: int, folder: str) -> Run:
    """Builds the run at a size, and writes its pictures for the worker."""
    config = style_gatys.get_config()
    config.weights, config.sizes = "random", (size,)
    run = Run.build(complete(config))
    shape = pictures.Size(*run.config.data.image_shape[:2])
    content = run.train_data.images[0] / np.float32(255)
    style_size = pictures.size_of(config.style, "style").scaled_to(max(shape.width, size))
    style = pictures.read_rgb(config.style, "style", style_size)
    np.save(f"{folder}/content_{size}.npy", content.astype(np.float32))
    np.save(f"{folder}/style_{size}.npy", style)
    return run


def write_weights(run: Run, folder: str) -> Any:
    """Writes the random VGG-19 of a run for the worker; returns its parameters."""
    params = jax.jit(lambda: run.init().model_state["vgg"])()
    flat = {f"{n}/{k}": np.asarray(x) for n, layer in params.items() for k, x in layer.items()}
    np.savez(f"{folder}/weights.npz", **flat)
    return params


def compare(size: int, run: Run, vgg: Any, torch: Torch) -> dict[str, Any]:
    """Lets both take turns at a size; returns what is printed of them."""
    ours = Ours(run, vgg)
    ours.steps(1), torch.steps(size, 1)  # compiles, and chooses algorithms
    turns = [(ours.steps(STEPS.value), torch.steps(size, STEPS.value)) for _ in range(TURNS.value)]
    best = [min(turn[who][0] for turn in turns) / STEPS.value for who in (0, 1)]
    return {
        "ours_seconds": round(best[0], 4),
        "torch_seconds": round(best[1], 4),
        "ratio": round(best[1] / best[0], 3),
        "losses": [loss for _, loss, _ in turns[-1]],
        "peak_mb": [round(memory) for *_, memory in turns[-1]],
    }


def main(argv: list[str]) -> None:
    """Compares both at every size and prints the results."""
    del argv
    set_up_process()
    results = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    with tempfile.TemporaryDirectory() as folder:
        runs = {size: build_run(size, folder) for size in map(int, SIZES.value)}
        vgg = write_weights(next(iter(runs.values())), folder)
        torch = Torch(folder)
        results["torch"] = torch.version
        for size, run in runs.items():
            height, width = run.config.data.image_shape[:2]
            results[f"{width}x{height}"] = compare(size, run, vgg, torch)
            print(json.dumps(results), flush=True)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    run_main(main)
