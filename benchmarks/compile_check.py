"""Compiles runs for accelerators that are not here: does it fit, what does it cost, does it scale?

XLA's own compilers for TPUs and NVIDIA GPUs run on any machine. This builds the step, the sampler
and the evaluation of each config at its real size, without data and without weights, compiles them
for each target, and prints a table. Nothing is run: memory, FLOPs and bytes are the compiler's,
the roofline is the least time that they could take, and no number is a speed.

  pip install -e '.[aot]'
  python -m benchmarks.compile_check --configs=vae_mnist,ddpm_cifar10 --targets=v5e:1x1,h100x1
      [--out=DIR] [--programs=step,sample,evaluate] [--kinds=jit,fsdp] [--level=O0] [--minutes=30]
  python -m benchmarks.compile_check --table --steps     # what OUT has, a line for each config

--configs: names, with an argument as in `vae_mnist:smoke`; "all". --targets: v5e:1x1, v5e:2x4,
v5p:2x2x1, v6e:2x4 ..., h100x1, h100x8, h200x1. --kinds: own for the config's. --level: XLA's
optimizations; O0 compiles several times faster, its FLOPs are within 1 % and its memory within some
per cent of the default's, its bytes mean little. Programs that were compiled are not compiled
again: OUT has the results by the hash of program, target and versions. A config has a process.

In FLOPs and bytes a loop counts once. The FLOPs of matrix products and convolutions are counted in
the traced program too, where loops count as often as they run: the larger one is the roofline's.
"""

import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

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


# --- Targets --------------------------------------------------------------------------------------


def _parts(target: str) -> tuple[str, tuple[int, ...]]:
    """Splits v5e:2x4 into v5e and (2, 4), h100x8 into h100 and (8,); () where that is no shape."""
    name, _, shape = target.partition(":") if ":" in target else target.rpartition("x")
    sides = shape.split("x")
    return name, tuple(map(int, sides)) if all(side.isdecimal() for side in sides) else ()


def chip_name(target: str) -> str:
    """Returns the key of `CHIPS` of a target, such as h100 of h100x8.

    Raises:
      UserError: it is no target.
    """
    from genjax.train.chips import CHIPS

    name, shape = _parts(target)
    if name not in CHIPS or not shape:
        known = ", ".join(name + (":2x4" if "v" in name else "x1") for name in CHIPS)
        raise UserError(f"--targets: '{target}' is unknown; like one of {known}")
    return name


def devices_of(target: str) -> tuple:
    """Returns the devices of a target, which compile and do not run.

    Raises:
      UserError: the target is unknown, or its compiler is not installed.
    """
    from jax.experimental import topologies

    name = chip_name(target)
    try:
        if ":" in target:
            return tuple(topologies.get_topology_desc(target, "tpu").devices)
        count = math.prod(_parts(target)[1])
        described = (Path(__file__).parent / "h100_target.txtpb").read_text()
        for old, new in {"h100": (), "h200": _H200}[name]:
            described = described.replace(old, new)
        options = {"topology": f"1x1x{count}", "target_config": described}
        return tuple(topologies.get_topology_desc(name, "cuda", **options).devices)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(
            f"--targets: no compiler for '{target}': {one_line(error)[:200]}; pip install -e "
            "'.[aot]'"
        ) from error


# What differs in XLA's description of an H200.
_H200 = (
    ("memory_bandwidth: 3352320000000", "memory_bandwidth: 4800000000000"),
    ("84942979072", "150110011392"),
    ("NVIDIA H100 80GB HBM3", "NVIDIA H200"),
)


# --- Compiling ------------------------------------------------------------------------------------


def check_config(name: str, out: Path) -> None:
    """Compiles the programs of a config for all targets, and writes a row of each into OUT."""
    config = _config(name)
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


def _config(name: str) -> Any:
    """Returns the config of a name with or without an argument, such as vae_mnist:smoke."""
    file, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{file}").get_config(argument)


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


# --- The table ------------------------------------------------------------------------------------


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Returns all rows that are in OUT, each with what follows from its costs."""
    rows = [json.loads(path.read_text()) for path in sorted((out / "rows").glob("*.json"))]
    for row in rows:
        row.update(roofline(row))
    single = {_key(row): row for row in rows if row["chips"] == 1}
    for row in rows:
        alone = single.get((chip_name(row["target"]), *_key(row)[1:]), {})
        if row["chips"] > 1 and row.get("flops") and alone.get("flops"):
            row["work_per_chip"] = row["flops"] / alone["flops"]
    return rows


def _key(row):
    return chip_name(row["target"]), row["config"], row["program"], row["level"]


def roofline(row: dict[str, Any]) -> dict[str, Any]:
    """Computes the least time that a program could take, of its FLOPs and bytes on one chip.

    Returns:
      "chips"; "roofline_seconds", the larger one of FLOPs over the peak and bytes over the
      bandwidth (the former alone where the bytes are not known); "mfu_bound", the share of the
      peak that it would use then, an upper bound of the utilisation; "memory_share" of the chip's.
    """
    from genjax.train.chips import CHIPS
    from genjax.train.programs import flops_of

    chip = CHIPS[chip_name(row["target"])]
    found: dict[str, Any] = {"chips": math.prod(_parts(row["target"])[1])}
    if "memory" in row:
        found["memory_share"] = row["memory"] / chip.memory
    flops = flops_of(row, found["chips"])
    seconds = max(flops / chip.flops, row.get("bytes", 0) / chip.bandwidth)
    if seconds and "memory" in row:
        found |= {"roofline_seconds": seconds, "roofline_flops": flops}
        if "bytes" in row:
            found["mfu_bound"] = flops / chip.flops / seconds
    return found


COLUMNS = ("config", "target", "program", "memory", "TFLOP", "GB", "roofline", "compute", "work")
COLUMNS += ("collectives", "compiled in")


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row's cells, in the order of `COLUMNS`."""
    kind = "" if row["kind"] == "jit" else f" {row['kind']}"
    first = [row["config"], f"{row['target']}{kind}", row["program"]]
    if "error" in row:
        return [*first, row["error"].replace("|", "/")[:160], *[""] * (len(COLUMNS) - 4)]
    moved = [
        f"{kind} {x['count']}, {_number(x['bytes'] / 1e6)} MB"
        for kind, x in sorted(row["collectives"].items())
    ]
    get = lambda name, scale=1.0: _number(row[name] / scale) if name in row else "-"
    return [
        *first,
        f"{get('memory', 1e9)} GB, {row['memory_share']:.0%}",
        get("roofline_flops", 1e12),
        get("bytes", 1e9),
        f"{get('roofline_seconds', 1e-3)} ms",
        f"{row['mfu_bound']:.0%}" if "mfu_bound" in row else "-",
        f"{row['work_per_chip']:.3f}" if "work_per_chip" in row else "-",
        "; ".join(moved) or "-",
        f"{row['seconds']:.0f} s, {row['level']}",
    ]


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a table in Markdown, a row each."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


SUMMARY = ("config", "batch", "v5e:1x1 memory", "TFLOP", "GB", "roofline", "compute")
SUMMARY += ("v5e:2x4 memory", "work", "collectives", "h100x1 memory", "roofline")


def summary(rows: list[dict[str, Any]]) -> str:
    """Returns the steps alone in Markdown: a line for each config, for the three usual targets."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["program"] == "step":
            found.setdefault(row["config"], {})[row["target"]] = row
    lines = [SUMMARY, ["---"] * len(SUMMARY)]
    for name, by_target in sorted(found.items()):
        line = [f"`{name}`", str(_config(name).batch_size)]
        for target, columns in (
            ("v5e:1x1", ("memory", "TFLOP", "GB", "roofline", "compute")),
            ("v5e:2x4", ("memory", "work", "collectives")),
            ("h100x1", ("memory", "roofline")),
        ):
            row = by_target.get(target, {"error": "not compiled"})
            if "error" in row:
                line += [_short(row["error"]), *[""] * (len(columns) - 1)]
            else:
                shown = dict(zip(COLUMNS, cells(row), strict=True))
                line += [shown[column] for column in columns]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _short(error: str) -> str:
    """Returns the part of an error that fits into a column."""
    for part in ("has no training", "must be a multiple of devices", "num_devices=1"):
        if part in error:
            return part
    return error.replace("|", "/")[:40]


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
    print(summary(rows) if STEPS.value else table(rows))


if __name__ == "__main__":
    run_main(main)
