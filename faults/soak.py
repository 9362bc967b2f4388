"""A long run: do memory, open files, threads and temporary files stay constant?

The default config trains without end, logging, evaluating and drawing every 10 steps and saving
now and then, and is watched from outside; compilations are counted from inside, once the first save
is complete. At the end it gets a SIGTERM. Orbax keeps about 30 kB per save, whatever its size, so a
run that saved at every step would measure that alone.

python -m faults.soak [--minutes=60] [--save_every=100]
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from faults import harness
from genjax.runner.command import run_main

MINUTES = flags.DEFINE_float("minutes", 60, "How long to watch.")
SAVE_EVERY = flags.DEFINE_integer("save_every", 100, "Steps between checkpoints.")

# launch.py in a process that writes down the time of every compilation.
WATCHED = """
import runpy, sys, time
import jax

compiles = sys.argv.pop(1)

def listen(event, seconds, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
        with open(compiles, "a") as file:
            file.write(f"{time.time()}\\n")

jax.monitoring.register_event_duration_secs_listener(listen)
sys.argv[0] = "launch.py"
runpy.run_path("launch.py", run_name="__main__")
"""

EVERY_10 = ("log", "eval", "sample")

Sample = dict[str, float]  # sizes of the process at one time


def watch(
    folder: Path, minutes: float, save_every: int, every_seconds: float = 5.0
) -> tuple[list[Sample], list[float], int]:
    """Runs, and watches from the end of the first save.

    Args:
      folder: of the workdir and the log.
      minutes: how long to watch.
      save_every: steps between checkpoints.
      every_seconds: seconds between two samples.

    Returns:
      (samples; seconds at which something was compiled after the first save; exit code).
    """
    workdir, compiles = folder / "run", folder / "compiles"
    command = [sys.executable, "-c", WATCHED, str(compiles), f"--workdir={workdir}"]
    command += ["--config=configs/vae_digits.py", "--config.num_train_steps=100000000"]
    command += [f"--config.{name}_every_steps=10" for name in EVERY_10]
    command += [f"--config.checkpoint_every_steps={save_every}"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=harness.ROOT, stdout=log, stderr=log)
    began, samples, warm = time.time(), [], None
    while time.time() < (warm + 60 * minutes if warm else began + 600):
        time.sleep(every_seconds if warm else 0.05)
        assert process.poll() is None, (folder / "log").read_text()
        # Two lines every 10 steps; the one after those of the first save comes when that is done.
        if warm is None and harness.num_lines(workdir) > 2 * save_every // 10:
            warm = time.time()
        if warm:
            samples.append({"seconds": time.time() - warm, **_sizes(process.pid, workdir)})
    assert warm, (folder / "log").read_text()
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=120)
    times = [float(line) for line in compiles.read_text().split()]
    return samples, [t - warm for t in times if t > warm], code


def _sizes(pid: int, workdir: Path) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    field = lambda name: int(status.split(f"{name}:")[1].split()[0])
    # Unlike `rglob`, `os.walk` passes over folders that are deleted meanwhile.
    names = [name for _, folders, files in os.walk(workdir) for name in folders + files]
    return {
        "memory_mb": field("VmRSS") / 1024,
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": field("Threads"),
        "temporary_files": sum("partial" in n or "orbax-checkpoint-tmp" in n for n in names),
        "trash": sum(n == ".trash" for n in names),
        "steps": harness.num_lines(workdir) // 2 * 10,
    }


def summary(samples: list[Sample]) -> dict[str, dict[str, Any]]:
    """Summarises each size, without the first tenth of the time.

    Returns:
      {size: {"first", "last": medians of the first and the last fifth, "most early", "most":
      maxima of the first half and of all}}; of memory also the medians "by tenths".
    """
    samples = samples[len(samples) // 10 :]
    fifth = max(1, len(samples) // 5)
    sizes = {}
    for name in ("memory_mb", "open_files", "threads", "temporary_files"):
        first = statistics.median(s[name] for s in samples[:fifth])
        last = statistics.median(s[name] for s in samples[-fifth:])
        early = max(s[name] for s in samples[: len(samples) // 2 + 1])
        most = max(s[name] for s in samples)
        sizes[name] = {"first": first, "last": last, "most early": early, "most": most}
    tenth = max(1, len(samples) // 10)
    memory = [s["memory_mb"] for s in samples]
    sizes["memory_mb"]["by tenths"] = [
        round(statistics.median(memory[i : i + tenth])) for i in range(0, len(memory), tenth)
    ]
    return sizes


def main(argv: list[str]) -> None:
    """Watches a run and prints the results; exits with 1 if something grows."""
    del argv
    with tempfile.TemporaryDirectory() as name:
        samples, compiled, code = watch(Path(name), MINUTES.value, SAVE_EVERY.value)
    sizes = summary(samples)
    result = {
        "minutes": (samples[-1]["seconds"] - samples[0]["seconds"]) / 60,
        "steps": samples[-1]["steps"],
        "exit code": code,
        "compilations after the first save": len(compiled),
        **sizes,
    }
    print(json.dumps(result, indent=1))
    # The heap and the thread pools go up and down in steps; a size that ends above the maximum of
    # the first half has grown.
    flat = all(size["last"] <= size["most early"] for size in sizes.values())
    sys.exit(0 if flat and not compiled and code == 0 else 1)


if __name__ == "__main__":
    run_main(main)
