"""The ahead-of-time compiler's command: its arithmetic, and (with the `aot` extra) itself."""

import json
import subprocess
import sys

import pytest

from benchmarks import compile_table
from genjax.errors import UserError
from genjax.train.chips import CHIPS
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "target, name", [("v5e:2x4", "v5e"), ("h100x8", "h100"), ("h200x1", "h200")]
)
def test_a_target_names_its_chip(target, name):
    assert compile_table.chip_name(target) == name


@pytest.mark.parametrize("target", ["v4:2x2", "v5e:", "v5e:2xb", "h100", "h100xb", "a100x1", ""])
def test_an_unknown_target_is_refused_in_one_line(target):
    with pytest.raises(UserError, match="--targets: .*unknown"):
        compile_table.chip_name(target)


ROW = {"config": "x", "target": "v5e:2x4", "kind": "jit", "program": "step", "level": "O0"}


def test_the_roofline_is_the_larger_one_of_compute_and_bandwidth():
    peak = CHIPS["v5e"]
    row = {**ROW, "flops": 1e12, "bytes": 1e9, "memory": 4e9}
    found = compile_table.roofline(row)
    assert found["chips"] == 8 and found["memory_share"] == pytest.approx(0.25)
    assert found["roofline_seconds"] == pytest.approx(1e12 / peak.flops)
    assert found["mfu_bound"] == pytest.approx(1)
    slow = compile_table.roofline({**row, "bytes": 1e11})
    assert slow["roofline_seconds"] == pytest.approx(1e11 / peak.bandwidth)
    assert slow["mfu_bound"] == pytest.approx(1e12 / peak.flops / (1e11 / peak.bandwidth))


def test_loops_that_the_compiler_counts_once_count_as_traced():
    row = {**ROW, "flops": 1e12, "matrix_flops": 8 * 5e12, "bytes": 1e9, "memory": 4e9}
    assert compile_table.roofline(row)["roofline_flops"] == 5e12


def test_a_row_that_did_not_compile_says_why_in_both_tables(tmp_path):
    row = {**ROW, "config": "vae_mnist", "error": "UserError: a | b"}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "one.json").write_text(json.dumps(row))
    rows = compile_table.rows_of(tmp_path)
    assert "| UserError: a / b |" in compile_table.table(rows)
    assert "not compiled" in compile_table.summary(rows)


@pytest.mark.aot
def test_two_configs_compile_for_one_chip_and_eight_under_every_kind(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compile_check", "--level=O0"]
    command += [
        "--configs=vae_mnist,gan_mnist",
        "--targets=v5e:1x1,v5e:2x4,h100x1",
        "--programs=step",
    ]
    for kind in ("jit", "pmap", "fsdp"):
        out = tmp_path / kind
        whole = [*command, f"--kinds={kind}", f"--out={out}"]
        subprocess.run(whole, cwd=ROOT, check=True, timeout=600)
        rows = json.loads((out / "compile_check.json").read_text())
        assert len(rows) == 6 and not [row for row in rows if "error" in row]
        assert {row["kind"] for row in rows} == {kind}
        eight = [row for row in rows if row["chips"] == 8]
        assert all("all-reduce" in row["collectives"] for row in eight)
        # Adam's update of every parameter, which no chip shares, is much of so small a step.
        assert all(row["work_per_chip"] < 1.5 / 8 for row in eight)
