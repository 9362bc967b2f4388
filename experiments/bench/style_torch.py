"""A step of Gatys' optimisation, ours and PyTorch's, side by side in one run.

configs/style_gatys.py's settings, VGG-19 with the same random weights, the same pictures at each
size; the two take turns. Prints JSON: seconds a step (the best turn of each), the ratio of
PyTorch's to ours (above 1: ours is faster), the peak memory of each process up to that size, and
both losses after the same number of steps.

python -m experiments.bench.style_torch [--torch_python=PYTHON] [--sizes=224,512] [--steps=3]
    [--turns=3]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import style_gatys
from experiments.command import run_main
from experiments.run import Run, set_up_process
from experiments.style_transfer import complete
from genjax.style import pictures

TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python with PyTorch.")
SIZES = flags.DEFINE_list("sizes", ["224", "512"], "Longer sides, small ones first.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps a turn.")
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each.")


class Torch:
    """The worker, torch_style.py."""

    def __init__(self, folder):
        worker = str(Path(__file__).with_name("torch_style.py"))
        self._process = subprocess.Popen(
            [TORCH_PYTHON.value, worker, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready, _, self.about = self._process.stdout.readline().strip().partition(" ")
        if ready != "ready":
            raise SystemExit(f"{TORCH_PYTHON.value} cannot run {worker}")

    def steps(self, size, count):
        """(seconds, the loss, peak memory in MB)."""
        self._process.stdin.write(f"{size} {count}\n")
        self._process.stdin.flush()
        return tuple(map(float, self._process.stdout.readline().split()))


class Ours:
    """The shared trainer's compiled step on the picture's run."""

    def __init__(self, run):
        self._run = run
        self.state = run.parallel.init(run.init)
        self._step = run.parallel.compile_train_step(run.train_step, jax.eval_shape(run.init))
        batch = run.train_data.batch(np.zeros(1, int), np.zeros(1, int))
        self._batch = run.parallel.shard(batch)

    def steps(self, count):
        """(seconds, the loss, peak memory in MB)."""
        began = time.perf_counter()
        for _ in range(count):
            self.state, (metrics, _) = self._step(self.state, self._batch)
        loss = float(metrics["loss"])
        return time.perf_counter() - began, loss, _memory()


def _memory():
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main(argv):
    del argv
    set_up_process()
    results = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, SIZES.value):
            config = style_gatys.get_config()
            config.weights, config.sizes = "random", (size,)
            run = runs[size] = Run.build(complete(config))
            shape = pictures.Size(*run.config.data.image_shape[:2])
            content = run.train_data.images[0] / np.float32(255)
            style_size = pictures.size_of(config.style, "style").scaled_to(max(shape.width, size))
            style = pictures.read_rgb(config.style, "style", style_size)
            np.save(f"{folder}/content_{size}.npy", content.astype(np.float32))
            np.save(f"{folder}/style_{size}.npy", style)
        params = jax.jit(lambda: runs[int(SIZES.value[0])].init().model_state["vgg"])()
        flat = {f"{n}/{k}": np.asarray(x) for n, layer in params.items() for k, x in layer.items()}
        np.savez(f"{folder}/weights.npz", **flat)
        torch = Torch(folder)
        results["torch"] = torch.about
        for size, run in runs.items():
            ours = Ours(run)
            ours.state = ours.state.replace(
                model_state={**ours.state.model_state, "vgg": jax.tree.map(jnp.asarray, params)}
            )
            ours.steps(1), torch.steps(size, 1)  # compiles, and finds its algorithms
            turns = [
                (ours.steps(STEPS.value), torch.steps(size, STEPS.value))
                for _ in range(TURNS.value)
            ]
            best = [min(turn[who][0] for turn in turns) / STEPS.value for who in (0, 1)]
            results[f"{run.config.data.image_shape[1]}x{run.config.data.image_shape[0]}"] = {
                "ours_seconds": round(best[0], 4),
                "torch_seconds": round(best[1], 4),
                "ratio": round(best[1] / best[0], 3),
                "losses": [turn_loss[1] for turn_loss in turns[-1]],
                "peak_mb": [round(x[2]) for x in turns[-1]],
            }
            print(json.dumps(results), flush=True)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    run_main(main)
