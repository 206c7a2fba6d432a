import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpq
from tests.standing import FORKING, Standing

SOURCE = Path(mpq.__file__)
TREE = ast.parse(SOURCE.read_text(encoding="utf-8"))


def typed() -> dict[str, str]:
    """Public name -> module, as type checkers see it."""
    block = next(node for node in TREE.body if isinstance(node, ast.If))
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"write `import {alias.name} as {alias.name}`"
            found[alias.name] = str(node.module)
    return found


def test_the_three_lists_of_public_names_agree_and_are_sorted() -> None:
    assert mpq.__all__ == sorted(mpq.__all__)
    assert list(mpq._HOMES) == mpq.__all__
    assert typed() == mpq._HOMES


@pytest.mark.parametrize("name", mpq.__all__)
def test_a_public_name_is_the_object_of_its_home_and_is_documented(name: str) -> None:
    found = getattr(mpq, name)
    assert found is getattr(importlib.import_module(mpq._HOMES[name]), name)
    assert found.__module__ == mpq._HOMES[name]
    assert found.__doc__


def test_tab_shows_the_public_names_before_any_is_used() -> None:
    code = "import sys, mpq; print(*dir(mpq)); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parent.parent, capture_output=True, text=True, check=True)
    names, torch = found.stdout.splitlines()
    assert names.split() == sorted([*mpq.__all__, "__version__"])
    assert torch == "False"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError) as error:
        mpq.quantise  # noqa: B018
    assert str(error.value) == "module 'mpq' has no attribute 'quantise'"


FIRST = ["import mpq.analyze.run", "from mpq.search import run"]
LATER = [
    "import mpq.analyze",
    "from mpq.analyze.run import analyze",
    "import mpq.apply.run, mpq.evaluate.run, mpq.search.run, mpq.analyze.run",
]


@pytest.fixture(scope="module")
def process() -> Iterator[Standing]:
    with Standing(FORKING, SOURCE.parent.parent) as standing:
        yield standing


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("first", FIRST)
def test_functions_that_share_a_rooms_name_stay_functions_whatever_is_imported(process: Standing, first: str) -> None:
    checks = [
        f"assert callable(mpq.{name}) and mpq.{name}.__name__ == '{name}'"
        for name in ("analyze", "apply", "evaluate", "export", "monitor", "search", "verify")
    ]
    code = "\n".join(["import mpq", first, *checks, *(line for later in LATER for line in (later, *checks))])
    process.ask(code)


@pytest.mark.parametrize("name", [name for name in mpq.__all__ if name != "MpqError"])
def test_help_has_a_line_for_every_argument(name: str) -> None:
    found = getattr(mpq, name)
    told = inspect.getdoc(found) or ""
    names = [each for each in inspect.signature(found).parameters if each != "self"]
    if len(names) > 1:
        assert [each for each in names if f"\n    {each}: " not in told] == []


@pytest.mark.parametrize("name", [name for name in mpq.__all__ if inspect.isclass(getattr(mpq, name))])
def test_every_public_method_is_documented(name: str) -> None:
    members = [(each, member) for each, member in vars(getattr(mpq, name)).items() if not each.startswith("_")]
    assert [
        each for each, member in members if (inspect.isfunction(member) or isinstance(member, property)) and not inspect.getdoc(member)
    ] == []
