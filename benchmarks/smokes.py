"""Runs every config at its smallest, as a user does: exit code and seconds of each, cold.

Each is a process of its own, with an empty cache of compiled programs and of data.

python -m benchmarks.smokes [--configs=vae_digits,cnn_mnist]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from genjax.runner.command import run_main

ROOT = Path(__file__).parent.parent

CONFIGS = flags.DEFINE_list("configs", [], "Names of configs; all if none is given.")


def main(argv: list[str]) -> None:
    """Prints a line for each config; exits with 1 if one fails."""
    del argv
    names = CONFIGS.value or sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "launch.py", f"--config=configs/{name}.py:smoke"]
            start = time.perf_counter()
            done = subprocess.run(
                [*command, f"--workdir={folder}/run"],
                cwd=ROOT,
                env={**os.environ, "GENJAX_CACHE": folder},
                capture_output=True,
                text=True,
            )
        seconds = time.perf_counter() - start
        print(f"{name:28}{done.returncode:3}{seconds:7.1f} s", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-800:], flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_main(main)
