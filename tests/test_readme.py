"""What the README says is what there is."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_ci_runs_exactly_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert "pytest" in command and f"\n{command}\n" in README


def test_every_file_that_is_named_is_there():
    named = re.findall(r"`((?:genjax|experiments|configs|tests|docs)/[\w/.]*)`", README)
    linked = re.findall(r"\]\((?!http)([\w/.]+)\)", README)
    assert len(named) > 5 and linked
    for path in named + linked:
        assert (ROOT / path).exists(), path


def test_every_config_is_in_the_table():
    for path in (ROOT / "configs").glob("*.py"):
        assert f"configs/{path.name}" in README
