"""Compares `genjax.models.inception` with torch-fidelity's and pytorch-fid's networks, tap by tap.

They draw random weights and save them in both formats of `torch.save`; our reader reads these, and
all three are given the same random images, in both ways to resize (torch-fidelity as "tf1",
pytorch-fid, which has no logits, as "torch"). Exit code 1 where they differ by more than rounding.

python -m benchmarks.inception_reference --torch_python=PATH [--seed=0]

PATH is a Python with PyTorch, torch-fidelity and pytorch-fid:
python3 -m venv DIR && DIR/bin/pip install torch torch-fidelity pytorch-fid
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from genjax.files import user_path
from genjax.models.inception import InceptionV3
from genjax.runner.command import run_main
from genjax.weights.inception import load_inception
from genjax.weights.read import read_arrays

TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python with the references.")
SEED = flags.DEFINE_integer("seed", 0, "Of weights and images.")

SHAPES = ((3, 32, 32, 3), (2, 299, 299, 3), (2, 350, 410, 3))
TOLERANCE = 1e-4  # of features up to about 50; float32 on both sides


def main(argv: list[str]) -> None:
    """Prints a table; exits with 1 where a difference is out of tolerance."""
    del argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder)
        version = run_references(folder)
        reference, _ = read_arrays(folder / "features.npz")
        variables = read_weights(folder)
    print(f"PyTorch {version}, JAX {jax.__version__} on {jax.default_backend()}")
    header = f"{'largest':>9} {'difference':>11} {'relative':>9}"
    print(f"{'images':16} {'resize':7} {'tap':16} {header}")
    worst = 0.0
    for resize in ("tf1", "torch"):
        features_of = jax.jit(InceptionV3(resize).apply)
        for stem, batch in images.items():
            for tap, ours in features_of(variables, batch).items():
                theirs = reference.get(f"{stem}/{resize}/{tap}")
                if theirs is None:
                    continue
                largest, difference = np.abs(theirs).max(), np.abs(ours - theirs).max()
                worst = max(worst, difference)
                print(
                    f"{stem:16} {resize:7} {tap:16} {largest:9.3f} {difference:11.2e} "
                    f"{difference / largest:9.1e}"
                )
    print(f"largest difference {worst:.2e}, tolerance {TOLERANCE:.0e}")
    sys.exit(not worst < TOLERANCE)


def write_images(folder: Path) -> dict[str, np.ndarray]:
    """Writes random uint8 images to files; returns them by name."""
    rng = np.random.default_rng(SEED.value)
    images = {}
    for shape in SHAPES:
        stem = f"images_{shape[1]}x{shape[2]}"
        images[stem] = rng.integers(0, 256, shape, dtype=np.uint8)
        np.save(folder / f"{stem}.npy", images[stem])
    return images


def run_references(folder: Path) -> str:
    """Runs the worker, which writes weights and features; returns PyTorch's version."""
    worker = Path(__file__).with_name("torch_inception.py")
    python = user_path(TORCH_PYTHON.value, "--torch_python")
    command = [str(python), worker, folder, str(SEED.value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{TORCH_PYTHON.value} cannot run {worker}")
    return done.stdout.strip()


def read_weights(folder: Path) -> dict[str, Any]:
    """Returns our variables; both files have to give the same ones."""
    both = [load_inception(folder / name)[0] for name in ("zip.pth", "legacy.pth")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    return both[0]


if __name__ == "__main__":
    run_main(main)
