"""The house: who may import whom."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "specreason_sgl"
FLOORS = (
    {"errors"},
    {"files", "packages", "tables", "text"},
    {"events", "settings", "tally"},
    {"embedded"},
    {"runs"},
    {"view"},
    {"lang"},
    {"engine"},
    {"testing"},
    {"servers"},
    {"evaluation"},
    {"measure"},
    {"api"},
    {"serve"},
    {"cli"},
    {"__init__", "__main__"},
)
"""From the ground up: each room imports from its own floor and from those below."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "stand_in" not in path.parts}


def imports(path: Path) -> dict[str, bool]:
    """The modules of the package that a module imports, and whether it does so when it runs and not for types alone."""
    found: dict[str, bool] = {}

    def walk(node: ast.AST, runs: bool) -> None:
        for child in ast.iter_child_nodes(node):
            now = runs and not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "specreason_sgl":
                package = (child.module or "").partition(".")[2]
                for alias in child.names:
                    full = f"{package}.{alias.name}".lstrip(".")
                    name = full if full in MODULES else package
                    found[name] = found.get(name, False) or now
            walk(child, now)

    walk(ast.parse(path.read_text(encoding="utf-8")), runs=True)
    return found


def room(module: str) -> str:
    return module.split(".", maxsplit=1)[0] or "__init__"


@pytest.mark.parametrize("module", list(MODULES))
def test_a_module_imports_from_its_own_floor_and_below(module: str) -> None:
    above = [name for name in imports(MODULES[module]) if name and FLOOR[room(name)] > FLOOR[room(module)]]
    assert above == []


def test_no_two_modules_import_each_other() -> None:
    graph = {
        name: {each for each, runs in imports(path).items() if runs and each != name} for name, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


def test_the_floors_are_all_there_is() -> None:
    assert {room(module) for module in MODULES} == set(FLOOR)
