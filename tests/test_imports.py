"""Imports point downwards only, and nothing imports itself on a detour."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the lowest room to the highest. A module imports from its own room and from lower ones.
ROOMS = (
    "genjax.errors",
    "genjax.messages",
    "genjax.shapes",
    "genjax.typing",
    "genjax.files",
    "genjax.archives",
    "genjax.download",
    "genjax.rng",
    "genjax.devices",
    "genjax.numerics",
    "genjax.data",
    "genjax.models",
    "genjax.objectives",
    "genjax.autoregressive",
    "genjax.diffusion",
    "genjax.weights",
    "genjax.metrics",
    "genjax.plots",
    "genjax.style",
    "genjax.train",
    "genjax.runner",
    "experiments",
    "configs",
    "launch",
    "benchmarks",
    "faults",
)
TOP = ("genjax", "experiments", "configs", "launch", "benchmarks", "faults")


def modules():
    """{dotted name: path} of everything that is not a test."""
    paths = [ROOT / "launch.py"]
    for top in TOP:
        paths += (ROOT / top).rglob("*.py")
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
    return {name for name in found if name in MODULES}


def room_of(module: str) -> str | None:
    fitting = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return fitting[0] if fitting else None


GRAPH = {name: imported_modules(path) for name, path in MODULES.items()}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_downwards(module):
    if module == "genjax":
        assert not GRAPH[module]
        return
    room = room_of(module)
    assert room, f"{module} belongs to no room of this test and of the README"
    for imported in GRAPH[module] - {"genjax"}:
        assert ROOMS.index(room_of(imported)) <= ROOMS.index(room), f"{module} imports {imported}"


def test_no_module_imports_itself_on_a_detour():
    done, cycles = set(), []

    def visit(module, path):
        if module in path:
            cycles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for imported in sorted(GRAPH[module]):
                visit(imported, [*path, module])
            done.add(module)

    for module in sorted(GRAPH):
        visit(module, [])
    assert not cycles, cycles


def test_the_families_are_exactly_those_of_the_table():
    from experiments import FAMILIES

    assert all(module in GRAPH for module in FAMILIES.values())
    with_a_build = {
        name
        for name, path in MODULES.items()
        if name.startswith("experiments.") and "\ndef build(" in path.read_text()
    }
    assert with_a_build == set(FAMILIES.values())
