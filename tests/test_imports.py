"""Imports point down: a room imports only rooms of lower floors, and no two files import each other, directly or in a circle."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpq

ROOT = Path(mpq.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("distribution", "limits", "processors"),
    ("shown",),
    ("errors",),
    ("formats", "notebook", "patterns", "progress", "registry", "writing"),
    ("budget", "files"),
    (
        "reading",
        "choices",
    ),
    ("config_file", "data", "records", "tensors"),
    ("choices", "config", "evidence", "models.memory"),
    ("models.sources",),
    ("models.running",),
    ("models.inputs", "models.layers"),
    ("activations", "calibration"),
    ("gradients",),
    ("recovery", "runtime"),
    ("integrations",),
    ("analyze", "apply", "check", "demo", "evaluate", "export", "report", "search"),
    ("monitor", "verify"),
    ("deployed_times", "one_shot", "reallocation", "schemas"),
    ("cli",),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
TORCH_FREE = (
    *(
        "distribution",
        "limits",
        "processors",
        "shown",
        "errors",
        "formats",
        "patterns",
        "notebook",
        "progress",
        "registry",
        "writing",
        "budget",
        "files",
        "reading",
        "config",
        "config_file",
    ),
    *("records", "evidence", "search", "check", "report", "schemas"),
)
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in sorted(ROOT.rglob("*.py"))
}


def room(module: str) -> str:
    parts = module.split(".")[1:]
    joined = ".".join(parts[:2])
    return joined if joined in FLOOR_OF else parts[0]


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: write imports in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports, read once, when the first test asks."""
    return {module: {name for name in imported(path) if name in MODULES and name != module} for module, path in MODULES.items()}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ("mpq", "mpq.__main__", "mpq.models")])
def test_imports_point_down(module: str) -> None:
    own = room(module)
    assert own in FLOOR_OF, f"{module} belongs to no known room"
    strays = sorted(name for name in imports()[module] if room(name) != own and FLOOR_OF[room(name)] >= FLOOR_OF[own])
    assert not strays, f"{module} imports {', '.join(strays)}"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle; empty if there are none."""
    left = {module: set(names) for module, names in graph.items()}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    return sorted(left)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circle({module: names for module, names in imports().items() if module != "mpq"})


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "mpq" and room(module) in TORCH_FREE])
def test_torch_free_rooms_do_not_name_torch_at_the_top_of_a_file(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "torch"]


def test_click_is_imported_nowhere() -> None:
    """Typer brings its own copy of click."""
    users = [module for module, path in MODULES.items() if any(name.split(".")[0] == "click" for name in imported(path))]
    assert not users


@pytest.mark.parametrize("package", [module for module, path in MODULES.items() if path.name == "__init__.py" and module != "mpq"])
def test_every_room_says_what_it_takes_and_gives(package: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8"))), f"{package} has no docstring"
