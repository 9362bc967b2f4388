"""The runs that want an accelerator, one after another, as far as the time goes.

Each run has its workdir under --out; when the time is over it is asked to stop, saves, and goes on
where it was when this is started again. What the runs found is in OUT/summary.json.

python -m experiments.bench.accelerator --out=DIR [--minutes=9]
    [--configs=airbench_cifar10:seeds=20,resnet18_cifar10,...] [-- --config.KEY=VALUE ...]
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from experiments.command import run_main

ROOT = Path(__file__).parent.parent.parent

OUT = flags.DEFINE_string("out", None, "Where the workdirs go.", required=True)
MINUTES = flags.DEFINE_float("minutes", 9.0, "When the last run is asked to stop.")
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
    "Which runs, in this order: names of configs, or in `SHORT`.",
)

# Names for a config with overrides. Style transfer costs the same with any weights, and random ones
# are there; 500 steps of 512 pixels, and the size of a print, on the embedded pictures.
SHORT = {
    "style_512": ("style_gatys", ["weights=random", "sizes=(512,)", "sample_every_steps=0"]),
    "style_2896": ("style_w2", ["weights=random", "sizes=(512,1024,2048,2896)", "size_steps=()"]),
}

# To save and to leave.
GRACE_SECONDS = 60


def run_until(deadline, command, log):
    """Runs a command; at the deadline asks it to stop. Returns its exit code, or None if asked."""
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


def main(argv):
    out, deadline = Path(OUT.value).absolute(), time.monotonic() + 60 * MINUTES.value
    out.mkdir(parents=True, exist_ok=True)
    summary = {}
    for name in CONFIGS.value:
        file, overrides = SHORT.get(name, (name, []))
        config, folder = f"configs/{file.replace(':', '.py:', 1)}", name.replace(":", "_")
        config += "" if ":" in file else ".py"
        asked = [f"--config.{override}" for override in overrides] + argv[1:]
        workdir = out / folder
        report = workdir / "report.json"
        told = summary.setdefault(name, {})
        measured = out / f"{folder}_utilisation.json"
        if not measured.exists() and time.monotonic() < deadline:
            command = ["-m", "experiments.bench.utilisation", f"--config={config}", *asked]
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
            )
            if done.returncode == 0:
                measured.write_text(done.stdout)
            else:
                told["error"] = done.stderr[-500:]
        if time.monotonic() < deadline:
            command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
            told["exit_code"] = run_until(deadline, command + asked, out / f"{folder}.log")
        for path in (measured, report):
            if path.exists():
                told.update(json.loads(path.read_text()))
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    run_main(main)
