"""What the README says is what there is."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_ci_runs_exactly_the_readmes_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    (command,) = (line for line in lines if line.startswith("python3 -m venv .venv &&"))
    assert command.endswith("-m pytest") and f"\n{command}\n" in README


def test_every_file_that_is_named_is_there():
    rooms = "genjax|experiments|configs|benchmarks|faults|tests|docs"
    named = re.findall(rf"`((?:{rooms})/[\w/.]*)`", README)
    linked = re.findall(r"\]\((?!http)([\w/.]+)\)", README)
    assert len(named) > 5 and linked
    for path in named + linked:
        assert (ROOT / path).exists(), path


def test_every_config_is_in_the_table():
    for path in (ROOT / "configs").glob("*.py"):
        assert f"configs/{path.name}" in README
