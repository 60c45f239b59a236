"""Which module imports which: no circle, nothing that points upwards, and a light part for one run."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

LAYERS = {
    "runs": 1,
    "read": 2,
    "study": 2,
    "judge": 3,
    "launch": 3,
    "search": 4,
    "keep": 5,
    "show": 5,
    "cli": 6,
    "__main__": 7,
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in ("sweeps", "mlp") for path in (ROOT / package).rglob("*.py")}


def imported(module: str) -> Iterator[str]:
    """The modules of ours that a module imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else node.module for name in within]
        else:
            continue
        yield from (name for name in found if name in MODULES and name != module)


def test_there_is_no_circle():
    faces = {"sweeps", "mlp"}  # whose names are imported when they are used
    graph = {name: set(imported(name)) - faces for name in MODULES if name not in faces}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph) > 100


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("sweeps.")))
def test_nothing_points_upwards(module):
    def layer(name: str) -> int:
        return LAYERS.get(name.split(".")[1], 0)

    above = [name for name in imported(module) if name.startswith("sweeps.") and layer(name) > layer(module)]
    assert not above
    assert not [name for name in imported(module) if name.split(".")[0] == "mlp"]


def test_a_run_needs_no_heavy_library():
    heavy = ("pandas", "matplotlib", "hydra", "scipy", "pyarrow")
    modules = [name for name in MODULES if name.startswith("sweeps.runs")]
    program = f"import sys, {', '.join(modules)}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
