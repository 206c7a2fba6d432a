import sys
from pathlib import Path

import pytest

from mpq.errors import UsageError
from mpq.report.png import write_pictures
from mpq.report.report_input import Subject
from mpq.search.run import search
from tests.report.making import ARTIFACT, whole
from tests.small import linear, random_table, table

PNG = b"\x89PNG\r\n\x1a\n"


def names(subject: Subject, page: Path) -> list[str]:
    paths = write_pictures(subject, page)
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    return [path.name for path in paths]


def test_without_matplotlib_its_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"^--png needs matplotlib: pip install 'mpq-torch\[png\]'$"):
        write_pictures(Subject("x", artifact=ARTIFACT), tmp_path / "x.report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_full_report_gives_three_pictures_named_after_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert names(whole(random_table(1)), tmp_path / "plan.report.html") == ["plan.frontier.png", "plan.bits.png", "plan.heat.png"]


def test_a_plan_alone_gives_its_bits_and_an_unfinished_table_its_heat(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert names(Subject("x", plan=search(random_table(3), "5bits").plan), tmp_path / "a.html") == ["a.bits.png"]
    assert names(Subject("x", table=random_table(3)), tmp_path / "b") == ["b.heat.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bits.png", "b.heat.png"]


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    name = "$\\frac{1}$"
    found = table([linear(name, 4, 64), linear("b", 4, 64)], {name: {"int4": 1.0, "int8": 0.5}, "b": {"int4": 0.0, "int8": float("nan")}})
    assert names(Subject("x", table=found), tmp_path / "x") == ["x.heat.png"]
