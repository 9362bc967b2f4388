"""Seconds from the command line to the end of the first step, cold and warm.

Cold: no prepared dataset, no decoded arrays, no compiled program. Warm: the same command again in
another workdir, with all that the first one left in the cache.

python -m experiments.bench.startup [--config=configs/vae_digits.py]
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from absl import flags

from experiments.command import run_main

CONFIG = flags.DEFINE_string("config", "configs/vae_digits.py", "The run to start.")


def seconds_to_first_step(cache, workdir):
    """Runs one step and returns what its own report says, with the wall time of the process."""
    command = [
        sys.executable,
        "launch.py",
        f"--config={CONFIG.value}",
        f"--workdir={workdir}",
        "--config.num_train_steps=1",
    ]
    began = time.perf_counter()
    env = {**os.environ, "GENJAX_CACHE": cache}
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    metrics = os.path.join(workdir, "metrics.jsonl")
    while not (os.path.exists(metrics) and os.path.getsize(metrics)):
        if process.poll() not in (None, 0):
            raise SystemExit(f"{' '.join(command)} failed")
        time.sleep(0.005)
    first = time.perf_counter() - began
    process.wait()
    with open(os.path.join(workdir, "report.json")) as f:
        compile_and_step = json.load(f)["first_step_seconds"]
    return {"to_first_step": first, "of_it_compile_and_step": compile_and_step}


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import experiments.run"], check=True)
        result = {"imports": time.perf_counter() - began}
        for name in ("cold", "warm", "warm_again"):
            workdir = os.path.join(folder, name)
            result[name] = seconds_to_first_step(os.path.join(folder, "cache"), workdir)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_main(main)
