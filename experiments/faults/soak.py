"""A long run: do memory, open files, threads and temporary files stay what they were?

The default config trains without end, logging, evaluating and drawing every 10 steps and saving
now and then, and is watched from outside; compilations are counted from inside, once the first save
is over. In the end it gets a SIGTERM. Orbax keeps about 30 kB a save, whatever its size: saving all
the time, that is what one would measure.

python -m experiments.faults.soak [--minutes=60] [--save_every=100]
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

from absl import flags

from experiments.command import run_main
from experiments.faults import harness

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


def watch(folder, minutes, save_every, every_seconds=5.0):
    """Runs, and watches from the end of the first save.

    Returns:
      (samples, a list of dicts; seconds of each compilation after the first save; exit code).
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
        # Two lines every 10 steps; the one after those of the first save comes when it is over.
        if warm is None and harness.last_line(workdir) > 2 * save_every // 10:
            warm = time.time()
        if warm:
            samples.append({"seconds": time.time() - warm, **_sizes(process.pid, workdir)})
    assert warm, (folder / "log").read_text()
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=120)
    times = [float(line) for line in compiles.read_text().split()]
    return samples, [t - warm for t in times if t > warm], code


def _sizes(pid, workdir):
    status = Path(f"/proc/{pid}/status").read_text()
    field = lambda name: int(status.split(f"{name}:")[1].split()[0])
    # Unlike `rglob`, `os.walk` passes over folders that are deleted under its hands.
    names = [name for _, folders, files in os.walk(workdir) for name in folders + files]
    return {
        "memory_mb": field("VmRSS") / 1024,
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": field("Threads"),
        "temporary_files": sum("partial" in n or "orbax-checkpoint-tmp" in n for n in names),
        "trash": sum(n == ".trash" for n in names),
        "steps": harness.last_line(workdir) // 2 * 10,
    }


def summary(samples):
    """Each size in the first and in the last fifth of the time, after a tenth to warm up, and the
    most it was in the first half and in all."""
    samples = samples[len(samples) // 10 :]
    fifth = max(1, len(samples) // 5)
    found = {}
    for name in ("memory_mb", "open_files", "threads", "temporary_files"):
        first = statistics.median(s[name] for s in samples[:fifth])
        last = statistics.median(s[name] for s in samples[-fifth:])
        early = max(s[name] for s in samples[: len(samples) // 2 + 1])
        most = max(s[name] for s in samples)
        found[name] = {"first": first, "last": last, "most early": early, "most": most}
    tenth = max(1, len(samples) // 10)
    memory = [s["memory_mb"] for s in samples]
    found["memory_mb"]["by tenths"] = [
        round(statistics.median(memory[i : i + tenth])) for i in range(0, len(memory), tenth)
    ]
    return found


def main(_):
    with tempfile.TemporaryDirectory() as name:
        samples, compiled, code = watch(Path(name), MINUTES.value, SAVE_EVERY.value)
    found = summary(samples)
    minutes = (samples[-1]["seconds"] - samples[0]["seconds"]) / 60
    result = {"minutes": minutes, "steps": samples[-1]["steps"], "exit code": code}
    print(
        json.dumps(
            {**result, "compilations after the first save": len(compiled), **found}, indent=1
        )
    )
    # The heap and the thread pools go up and down in steps; what ends above all that the first
    # half saw has grown.
    flat = all(v["last"] <= v["most early"] for v in found.values())
    sys.exit(0 if flat and not compiled and code == 0 else 1)


if __name__ == "__main__":
    run_main(main)
