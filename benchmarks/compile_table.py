"""What `compile_check` compiles for, and the table of what it found.

A target is a kind of chip and how many: v5e:2x4, h100x8. A row is a program of a config on a
target: its costs are the compiler's, and the rest follows from them and from the peaks of the chip.
"""

import importlib
import json
import math
from pathlib import Path
from typing import Any

from genjax.errors import UserError, one_line

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


# --- The table ------------------------------------------------------------------------------------


def config_of(name: str) -> Any:
    """Returns the config of a name with or without an argument, such as vae_mnist:smoke."""
    file, _, argument = name.partition(":")
    return importlib.import_module(f"configs.{file}").get_config(argument)


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
    from genjax.train.chips import CHIPS, roofline_seconds
    from genjax.train.programs import flops_of

    chip = CHIPS[chip_name(row["target"])]
    found: dict[str, Any] = {"chips": math.prod(_parts(row["target"])[1])}
    if "memory" in row:
        found["memory_share"] = row["memory"] / chip.memory
    flops = flops_of(row, found["chips"])
    seconds = roofline_seconds(chip, flops, row.get("bytes", 0))
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
        line = [f"`{name}`", str(config_of(name).batch_size)]
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
