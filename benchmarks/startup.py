"""Seconds from the command line to the end of the first step, cold and warm.

Cold: no prepared dataset, no decoded arrays, no compiled program. Warm: the same command again in
another workdir, with all that the first one left in the cache.

python -m benchmarks.startup [--config=configs/vae_digits.py]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from benchmarks.timing import seconds_of
from genjax.runner.command import run_main

ROOT = Path(__file__).parent.parent

CONFIG = flags.DEFINE_string("config", "configs/vae_digits.py", "The run to start.")

IMPORTS = "from genjax.runner import datasets, family, modes, run, train"  # those of launch.py


def seconds_to_first_step(cache: Path, workdir: Path) -> dict[str, float]:
    """Runs one step; returns the process's seconds until then, and those in its own report."""
    command = [sys.executable, "launch.py", f"--config={CONFIG.value}", f"--workdir={workdir}"]
    command.append("--config.num_train_steps=1")
    start = time.perf_counter()
    env = {**os.environ, "GENJAX_CACHE": str(cache)}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() not in (None, 0):
            raise SystemExit(f"{' '.join(command)} failed")
        time.sleep(0.005)
    first = time.perf_counter() - start
    process.wait()
    compile_and_step = json.loads((workdir / "report.json").read_text())["first_step_seconds"]
    return {"to_first_step": first, "of_it_compile_and_step": compile_and_step}


def main(argv: list[str]) -> None:
    """Prints the seconds of imports, of a cold start and of two warm ones."""
    del argv
    imports = lambda: subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True)
    result = {"imports": seconds_of(imports)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("cold", "warm", "warm_again"):
            result[name] = seconds_to_first_step(folder / "cache", folder / name)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
