"""The page of the Python API is fresh, whole, and its examples run."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

import mpq
from mpq.cli import api_page
from mpq.cli.api_examples import EXAMPLES
from mpq.cli.api_page import page
from mpq.demo import write_demo
from tests import documents
from tests.cli.typed import ROOT


def test_the_page_of_the_api_is_fresh() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == page(), "run: python -m mpq.cli.api_page > docs/api.md"


def test_every_public_name_has_an_example_that_uses_it() -> None:
    assert sorted(EXAMPLES) == mpq.__all__
    assert [name for name, text in EXAMPLES.items() if f"mpq.{name}" not in text] == ["Sensitivity", "Plan"]  # what functions return


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo("digits", tmp_path)
    documents.run(ROOT / "docs" / "api.md")
    printed = capsys.readouterr().out
    assert "int4-g32 4.5\n12000\n" in printed
    assert "2 budget 0.1bits" in printed


@dataclass
class Made:
    """A class.

    Args:
        first: its text
            goes on here: with a colon.
        second: one | of two.

    Raises:
        ValueError: never.
    """

    first: str
    second: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of it."""
        return 1

    def add(self, one: int, *others: int) -> None:
        """Add some."""

    def bare(self) -> None: ...


def test_a_class_gets_its_arguments_errors_and_documented_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_page, "EXAMPLES", {"Made": "mpq.Made()"})
    text = "\n".join(api_page._entry("Made", Made))
    assert "mpq.Made(first: str, second: dict[str, int] = {})\n" in text
    assert "| `first` | its text goes on here: with a colon. |\n| `second` | one \\| of two. |\n" in text
    assert "| Raises | |\n|---|---|\n| `ValueError` | never. |\n" in text
    assert "| `total` | All of it. |\n| `add(one, *others)` | Add some. |\n\n```python\nmpq.Made()\n```" in text


def test_the_tree_of_errors_is_on_the_page() -> None:
    assert "├── UsageError          2" in page()


def test_a_long_signature_has_one_argument_per_line() -> None:
    assert "    cost: float = 1.0,\n    *,\n    name: str,\n" in api_page._signature(long)


def long(model: str, data: tuple[str, ...], candidates: tuple[str, ...], cost: float = 1.0, *, name: str, other: str = "none") -> str:
    return name
