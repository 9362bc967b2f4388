"""Runs that need an accelerator, one after another, until a time limit.

Each run has its workdir under --out. At the time limit the current run is asked to stop; it saves,
and continues when the same command is started again. OUT/summary.json collects the reports, and
beside the seconds of each config's step its roofline (`benchmarks/utilisation.py`).

python -m benchmarks.accelerator --out=DIR [--minutes=9]
    [--configs=airbench_cifar10:seeds=20,resnet18_cifar10,...] [-- --config.KEY=VALUE ...]
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from genjax.files import user_path
from genjax.runner.command import run_main

ROOT = Path(__file__).parent.parent

OUT = flags.DEFINE_string("out", None, "The folder of the workdirs.", required=True)
MINUTES = flags.DEFINE_float("minutes", 9.0, "The time limit.")
CONFIGS = flags.DEFINE_list(
    "configs",
    [
        "airbench_cifar10:seeds=20",
        "resnet18_cifar10",
        "gan_stacked_mnist",
        "sngan_cifar10",
        "r3gan_cifar10",
        "edm_cifar10",
        "flow_cifar10",
        "ddpm_cifar10",
        "meanflow_cifar10",
        "consistency_cifar10",
        "pixelcnn_pp_cifar10",
        "vdvae_mnist",
        "vdvae_cifar10",
        "vqvae_cifar10",
        "iwae_mnist",
        "style_512",
        "style_2896",
    ],
    "The runs, in this order: names of configs, or in `SHORT`.",
)

# Names for a config with overrides, both on the embedded pictures: 500 steps at 512 pixels, and the
# size of a print. Style transfer costs the same with any weights, and random ones need no download.
SHORT = {
    "style_512": ("style_gatys", ["weights=random", "sizes=(512,)", "sample_every_steps=0"]),
    "style_2896": ("style_w2", ["weights=random", "sizes=(512,1024,2048,2896)", "size_steps=()"]),
}

GRACE_SECONDS = 60  # to save and to end, after the time limit


def run_until(deadline: float, command: list[str], log: Path) -> int | None:
    """Runs a command, and asks it to stop at a deadline.

    Args:
      deadline: in seconds of `time.monotonic`.
      command: and its arguments.
      log: the file that its output is appended to.

    Returns:
      Its exit code, or None if it was asked to stop.
    """
    with open(log, "ab") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            return process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return None


def results_of(name: str, out: Path, deadline: float, options: list[str]) -> dict[str, Any]:
    """Measures and trains one run, as far as the time goes.

    Args:
      name: of a config, or in `SHORT`.
      out: where its workdir, log and utilisation go.
      deadline: in seconds of `time.monotonic`.
      options: of the command line, for every run.

    Returns:
      Its utilisation and report, as far as they exist, with the exit code and an error.
    """
    file, overrides = SHORT.get(name, (name, []))
    config = f"configs/{file.replace(':', '.py:', 1)}" if ":" in file else f"configs/{file}.py"
    options = [f"--config.{override}" for override in overrides] + options
    folder, results = name.replace(":", "_"), {}
    workdir, measured = out / folder, out / f"{folder}_utilisation.json"
    if not measured.exists() and time.monotonic() < deadline:
        command = [sys.executable, "-m", "benchmarks.utilisation", f"--config={config}", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            measured.write_text(done.stdout)
        else:
            results["error"] = done.stderr[-500:]
    if time.monotonic() < deadline:
        command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
        results["exit_code"] = run_until(deadline, command + options, out / f"{folder}.log")
    for path in (measured, workdir / "report.json"):
        if path.exists():
            results.update(json.loads(path.read_text()))
    return results


def main(argv: list[str]) -> None:
    """Runs all configs and prints the summary."""
    out, deadline = user_path(OUT.value, "--out").absolute(), time.monotonic() + 60 * MINUTES.value
    out.mkdir(parents=True, exist_ok=True)
    summary = {name: results_of(name, out, deadline, argv[1:]) for name in CONFIGS.value}
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    run_main(main)
