"""Compiles runs for accelerators that are not here: does it fit, what does it cost, does it scale?

XLA's own compilers for TPUs and NVIDIA GPUs run on any machine. This builds the step, the sampler
and the evaluation of each config at its real size, without data and without weights, compiles them
for each target, and prints a table. Nothing is run: memory, FLOPs and bytes are the compiler's,
the roofline is the least time that they could take, and no number is a speed.

  pip install -e '.[aot]'
  python -m benchmarks.compile_check --configs=vae_mnist,ddpm_cifar10 --targets=v5e:1x1,h100x1
      [--out=DIR] [--programs=step,sample,evaluate] [--kinds=jit,fsdp] [--level=O0] [--minutes=30]
  python -m benchmarks.compile_check --table --steps     # what OUT has, a line for each config
  python -m benchmarks.compile_check --table --programs=sample --targets=v5e:1x1

--configs: names, with an argument as in `vae_mnist:smoke`; "all". --targets: v5e:1x1, v5e:2x4,
v5p:2x2x1, v6e:2x4 ..., h100x1, h100x8, h200x1. --kinds: own for the config's. --level: XLA's
optimizations; O0 compiles several times faster, its FLOPs are within 1 % and its memory within some
per cent of the default's, its bytes mean little. Programs that were compiled are not compiled
again: OUT has the results by the hash of program, target and versions. A config has a process.

In FLOPs and bytes a loop counts once. The FLOPs of matrix products and convolutions are counted in
the traced program too, where loops count as often as they run: the larger one is the roofline's.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.compile_table import chip_name, config_of, devices_of, rows_of, summary, table
from genjax.errors import UserError, one_line
from genjax.files import user_path, write_json
from genjax.runner.command import run_main

ROOT = Path(__file__).parent.parent
PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")

# Without them libtpu asks the network of a data centre what machine this is.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

CONFIGS = flags.DEFINE_list("configs", ["all"], "Names of configs, or all.")
TARGETS = flags.DEFINE_list("targets", ["v5e:1x1", "v5e:2x4", "h100x1"], "See the module.")
PROGRAMS = flags.DEFINE_list("programs", ["step", "sample", "evaluate"], "What is compiled.")
KINDS = flags.DEFINE_list("kinds", ["own"], "jit, pmap or fsdp; own: the config's.")
LEVEL = flags.DEFINE_enum(
    "level", "", ["", "O0", "O1", "O2", "O3"], "XLA's optimizations; empty: the default."
)
OUT = flags.DEFINE_string("out", "runs/compile_check", "The folder of the results.")
MINUTES = flags.DEFINE_float("minutes", 30.0, "The time limit of a config.")
TABLE = flags.DEFINE_bool("table", False, "Print what OUT has; compile nothing.")
STEPS = flags.DEFINE_bool("steps", False, "Print a line for each config: its steps alone.")
ONE = flags.DEFINE_bool("one", False, "Work in this process.")


# --- Compiling ------------------------------------------------------------------------------------


def check_config(name: str, out: Path) -> None:
    """Compiles the programs of a config for all targets, and writes a row of each into OUT."""
    config = config_of(name)
    for target in TARGETS.value:
        for kind in KINDS.value:
            kind = config.parallel if kind == "own" else kind
            try:
                found = _programs(config, target, kind)
            except (UserError, ValueError, TypeError) as error:
                for program in PROGRAMS.value:
                    _write(out, _row(name, target, kind, program, error=one_line(error)))
                continue
            for program, (function, shapes) in found.items():
                if program in PROGRAMS.value:
                    _compile(_row(name, target, kind, program), function, shapes, out)


def _programs(config: Any, target: str, kind: str) -> dict[str, tuple]:
    """Returns {program: (jitted function, shapes)}."""
    from genjax.runner.ahead import programs, run_without_data
    from genjax.train.parallel import Parallel

    devices = devices_of(target)
    if config.num_devices not in (0, len(devices)):
        raise UserError(f"config.num_devices={config.num_devices}, not {len(devices)}")
    return programs(run_without_data(config, Parallel(kind, devices)))


def _row(name: str, target: str, kind: str, program: str, **more: Any) -> dict[str, Any]:
    keys = {"config": name, "target": target, "kind": kind, "program": program}
    return {**keys, "level": LEVEL.value or "default", **more}


def _compile(row: dict[str, Any], function: Any, shapes: tuple, out: Path) -> None:
    """Completes a row, from the cache if this program was compiled before."""
    from genjax.train.programs import collectives_of, costs_of, matrix_flops

    start = time.perf_counter()
    try:
        if row["kind"] == "pmap":  # has no trace of its own
            lowered = function.lower(*shapes)
        else:
            traced = function.trace(*shapes)
            row["matrix_flops"] = matrix_flops(traced.jaxpr)
            lowered = traced.lower()
        row["lower_seconds"] = round(time.perf_counter() - start, 1)
        versions = [f"{package} {_version(package)}" for package in PACKAGES]
        key = [lowered.as_text(), row["target"], row["kind"], row["level"], versions]
        row["program_sha256"] = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        cached = out / "programs" / f"{row['program_sha256'][:32]}.json"
        if not cached.exists():
            _write(out, {**row, "error": "does not end"})  # until it does
            start = time.perf_counter()
            compiled = lowered.compile()
            costs = {**costs_of(compiled), "collectives": collectives_of(compiled.as_text())}
            costs["seconds"] = round(time.perf_counter() - start, 1)
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_json(cached, costs)
        row.update(json.loads(cached.read_text()))
    except Exception as error:  # whatever a compiler refuses is a result
        row["error"] = f"{type(error).__name__}: {one_line(error)}"[:500]
    _write(out, row)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _write(out: Path, row: dict[str, Any]) -> None:
    keys = [row[key] for key in ("config", "target", "kind", "program", "level")]
    name = "-".join(key.replace(":", "_") for key in keys)
    write_json(out / "rows" / f"{name}.json", row)


# --- Command --------------------------------------------------------------------------------------


def _names() -> list[str]:
    known = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    if CONFIGS.value == ["all"]:
        return known
    for name in CONFIGS.value:
        if name.partition(":")[0] not in known:
            raise UserError(f"--configs: '{name}' is none of {', '.join(known)}, or all")
    return CONFIGS.value


def _in_a_process(name: str, out: Path) -> None:
    """Checks a config in a process of its own, which a compiler may end."""
    command = [sys.executable, "-m", "benchmarks.compile_check", "--one", f"--configs={name}"]
    for flag in (TARGETS, PROGRAMS, KINDS):
        command.append(f"--{flag.name}={','.join(flag.value)}")
    command += [f"--level={LEVEL.value}", f"--out={out}"]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES.value,
        )
        ended = "" if done.returncode == 0 else f"  {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        ended = f"  not done after {MINUTES.value:g} minutes"
    print(f"{name}: {time.perf_counter() - start:.0f} s{ended}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> None:
    """Compiles what was asked for, and prints the table."""
    os.environ.update(ENVIRONMENT)  # before JAX is imported
    if LEVEL.value:
        os.environ["JAX_OPTIMIZATION_LEVEL"] = LEVEL.value
    from genjax.train.parallel import KINDS as PARALLEL

    del argv
    out = user_path(OUT.value, "--out").absolute()
    (out / "rows").mkdir(parents=True, exist_ok=True)
    for target in TARGETS.value:
        chip_name(target)
    for flag, known in ((PROGRAMS, ("step", "sample", "evaluate")), (KINDS, ("own", *PARALLEL))):
        for value in flag.value:
            if value not in known:
                raise UserError(f"--{flag.name}: '{value}' is none of {', '.join(known)}")
    names = _names()
    if ONE.value:
        for name in names:
            check_config(name, out)
        return
    if not TABLE.value:
        for name in names:
            _in_a_process(name, out)
    rows = rows_of(out)
    write_json(out / "compile_check.json", rows)
    flags_of = {"config": names, "target": TARGETS.value, "program": PROGRAMS.value}
    rows = [row for row in rows if all(row[key] in values for key, values in flags_of.items())]
    print(summary(rows) if STEPS.value else table(rows))


if __name__ == "__main__":
    run_main(main)
