"""Arrows point down: `cli -> stages -> models -> tensors -> formats, errors`, and never from one stage to another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpq

ROOT = Path(mpq.__file__).parent
BASE = {"errors", "formats", "registry", "schemes"}
DATA = BASE | {"budget", "files", "records"}
STAGES = {"analyze", "search", "apply", "evaluate", "check", "export", "report", "demo"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "formats": {"errors"},
    "registry": {"errors"},
    "schemes": {"formats"},
    "budget": {"errors"},
    "files": {"errors"},
    "config": BASE,
    "schemas": BASE | {"tensors", "models", "analyze"},  # their registries alone, which are without torch
    "records": BASE | {"budget", "files"},
    "tensors": BASE,
    "models": DATA | {"tensors"},
    **dict.fromkeys(STAGES, DATA | {"config", "tensors", "models"}),
    "search": DATA | {"config"},
    "cli": DATA | {"config", "schemas", "tensors", "models"} | STAGES,
}
EXCEPTIONS = {
    "export/weights/reopen.py": {"mpq.runtime.load"},  # an exporter starts from the running model of an artifact
    "export/source.py": {"mpq.apply.shard_plan"},  # which may lie in several files
    "search/steer.py": {"mpq.models.select"},  # patterns over names, without torch
}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "mpq"


def imported(file: str) -> Iterator[str]:
    """Modules of mpq that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mpq")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports in full"
            if node.module == "mpq":
                yield from (f"mpq.{alias.name}" for alias in node.names)
            elif node.module is not None and node.module.startswith("mpq."):
                yield node.module


@pytest.mark.parametrize("file", [file for file in FILES if file not in ("__init__.py", "__main__.py")])
def test_imports_point_down(file: str) -> None:
    own = file.split("/")[0].removesuffix(".py")
    assert own in ALLOWED, f"mpq/{file} belongs to no known room"
    strays = sorted(m for m in imported(file) if room(m) not in ALLOWED[own] | {own} and m not in EXCEPTIONS.get(file, set()))
    assert not strays, f"mpq/{file} imports {', '.join(strays)}"


def test_the_order_of_the_rooms_has_no_circle() -> None:
    left = dict(ALLOWED)
    while left:
        free = [name for name, below in left.items() if not below & set(left)]
        assert free, f"circle among {', '.join(left)}"
        for name in free:
            del left[name]


def test_only_the_package_itself_imports_from_every_room() -> None:
    assert {room(module) for module in imported("__init__.py")} <= set(ALLOWED)


@pytest.mark.parametrize("name", ["torch", "click"])
def test_rooms_without_torch_never_name_it_and_click_is_named_nowhere(name: str) -> None:
    quiet = {"errors", "formats", "registry", "schemes", "budget", "files", "config", "records", "search"}
    for file in FILES:
        own = file.split("/")[0].removesuffix(".py")
        if name == "click" or own in quiet:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert not any(found.split(".")[0] == name for found in names), f"mpq/{file} imports {name}"
