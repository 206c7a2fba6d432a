"""Each measure of benchmarks/house.py counts right on a small tree made for it."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

import benchmarks.house
from benchmarks.house import Measure, main, measures, mirror, read


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def measured(folder: Path, source: Mapping[str, str], tests: Mapping[str, str] | None = None) -> dict[str, Measure]:
    """The measures of a package `pkg`, by the first two words of their names."""
    found = measures(read(write(folder / "pkg", source)), read(write(folder / "tests", tests or {"__init__.py": ""})))
    return {" ".join(each.name.split()[:2]).rstrip(","): each for each in found} | {"for types": found[6]}


def lines(count: int) -> str:
    return "x = 1\n" * count


def test_files_are_counted_with_their_median_and_the_longest(tmp_path: Path) -> None:
    found = measured(tmp_path, {"a.py": lines(10), "b/c.py": lines(301), "b/d.py": lines(300)})
    assert (found["files"].value, found["median file"].value, found["longest file"].value) == (3, 300, 301)
    assert (found["longest file"].met, found["longest file"].offenders) == (False, ("b/c.py: 301 lines",))


def test_functions_of_twenty_lines_count_as_short_and_of_21_as_long(tmp_path: Path) -> None:
    functions = [f"def f{count}() -> None:\n" + "    pass\n" * (count - 1) for count in (2, 20, 21)]
    found = measured(tmp_path, {"a.py": "\n".join(functions)})["functions of"]
    assert found.value == pytest.approx(2 / 3)
    assert (found.text, found.met) == ("66.6%", False)
    assert found.offenders == ("a.py:25 f21: 21 lines",)


def test_arguments_and_returns_are_annotated_but_for_self_and_cls(tmp_path: Path) -> None:
    text = """
        class A:
            def __new__(cls) -> "A": ...
            def method(self, a: int, *b: int, c=1, **d) -> None: ...
            @staticmethod
            def free(a) -> None: ...
            @classmethod
            def made(cls): ...
    """
    found = measured(tmp_path, {"a.py": text})["annotated arguments"]
    assert found.offenders == ("a.py:4 method(c)", "a.py:4 method(d)", "a.py:6 free(a)", "a.py:8 made -> ?")
    assert found.value == pytest.approx(1 - 4 / 9)


def test_one_missing_annotation_among_thousands_is_not_printed_as_all(tmp_path: Path) -> None:
    text = "def f() -> None: ...\n" * 3000 + "def g(): ...\n"
    assert measured(tmp_path, {"a.py": text})["annotated arguments"].text == "99.9%"


def test_circles_count_imports_inside_functions_and_relative_ones_and_types_apart(tmp_path: Path) -> None:
    source = {
        "__init__.py": "",
        "a.py": "from pkg.room import b\n",
        "room/__init__.py": "",
        "room/b.py": "def f() -> None:\n    from .c import x\n",
        "room/c.py": "from .. import a\nx = a\n",
        "room/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.room.e import E\n",
        "room/e.py": "import pkg.room.d\nclass E: ...\n",
    }
    found = measured(tmp_path, source)
    assert (found["circles of"].value, found["circles of"].offenders) == (1, ("a.py <-> room/b.py <-> room/c.py",))
    assert (found["for types"].value, found["for types"].offenders) == (1, ("room/d.py <-> room/e.py",))
    assert (found["circles of"].met, found["for types"].met) == (False, True)


def test_files_that_import_one_way_are_no_circle(tmp_path: Path) -> None:
    found = measured(tmp_path, {"a.py": "import pkg.b\nimport pkg.c\n", "b.py": "import pkg.c\n", "c.py": "import os\n"})
    assert (found["circles of"].value, found["circles of"].met) == (0, True)


def test_a_sub_room_is_a_room_of_its_own(tmp_path: Path) -> None:
    source = {"models/a.py": lines(10), "models/sources/b.py": lines(25), "models/sources/c.py": lines(5), "top.py": lines(60)}
    found = measured(tmp_path, source)["largest room"]
    assert (found.name, found.value) == ("largest room (.)", 0.6)
    assert found.offenders == (".: 60.0%", "models/sources: 30.0%")


def test_only_files_with_public_behaviour_need_a_test_file_and_it_must_hold_a_test(tmp_path: Path) -> None:
    source = {
        "room/tested.py": "def f() -> int:\n    return 1\n",
        "room/empty.py": "def f() -> int:\n    return 1\n",
        "room/method.py": "class A:\n    def f(self) -> int:\n        return 1\n",
        "room/data.py": "class A:\n    x: int\n",
        "room/protocol.py": "class A:\n    def f(self) -> int:\n        'Words.'\n        ...\n",
        "room/private.py": "def _f() -> int:\n    return 1\n",
        "room/__init__.py": "def f() -> int:\n    return 1\n",
        "__init__.py": "def f() -> int:\n    return 1\n",
    }
    tests = {"room/test_tested.py": "def test_f() -> None: ...\n", "room/test_empty.py": "x = 1\n"}
    found = measured(tmp_path, source, tests)["source files"]
    assert found.offenders == (
        "room/__init__.py: no tests/room/test_room.py",
        "room/empty.py: no tests/room/test_empty.py",
        "room/method.py: no tests/room/test_method.py",
    )
    assert (found.value, found.met) == (3, False)


@pytest.mark.parametrize(
    ("source", "test"),
    [("budget.py", "test_budget.py"), ("a/b.py", "a/test_b.py"), ("a/b/__init__.py", "a/b/test_b.py"), ("a/_b.py", "a/test_b.py")],
)
def test_the_test_file_mirrors_the_source_file(source: str, test: str) -> None:
    assert mirror(source) == test


@pytest.mark.parametrize(("count", "met"), [(90, True), (89, False)])
def test_the_ratio_of_test_lines_to_source_lines(tmp_path: Path, count: int, met: bool) -> None:
    found = measured(tmp_path, {"a.py": lines(100)}, {"test_a.py": lines(count)})["test lines"]
    assert (found.value, found.met) == (count / 100, met)


def many_rooms() -> dict[str, str]:
    return {f"room{each}/a.py": "def f() -> int:\n    return 1\n" for each in range(8)}


def test_the_command_exits_with_0_when_every_bar_is_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "pkg", many_rooms())
    write(tmp_path / "tests", {f"room{each}/test_a.py": "def test_f() -> None:\n    assert f() == 1\n" for each in range(8)})
    assert main(["--source", str(tmp_path / "pkg"), "--tests", str(tmp_path / "tests")]) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_the_command_exits_with_1_when_a_bar_is_missed_and_lists_the_offenders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--source",
        str(write(tmp_path / "pkg", many_rooms())),
        "--tests",
        str(write(tmp_path / "tests", {"__init__.py": "x = 1\n"})),
    ]
    assert main([*options, "--list"]) == 1
    printed = capsys.readouterr().out
    assert "source files without a test file               8  0               MISSED" in printed
    assert "    room7/a.py: no tests/room7/test_a.py" in printed
    assert main([*options, "--json"]) == 1
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["source files without a test file"] | {"offenders": []} == {
        "name": "source files without a test file",
        "value": 8,
        "bar": "0",
        "met": False,
        "offenders": [],
        "unit": "",
    }


def test_a_folder_without_python_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--source", str(tmp_path)])
    assert error.value.code == 2
    assert f"{tmp_path} holds no Python files" in capsys.readouterr().err


def test_this_repository_meets_every_bar() -> None:
    root = Path(benchmarks.house.__file__).parents[1]
    missed = {each.name: each.offenders for each in measures(read(root / "mpq"), read(root / "tests")) if not each.met}
    assert missed == {}
