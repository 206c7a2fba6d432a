"""Formats are found in the files of their folder."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpq.formats
from mpq.formats import registry
from mpq.formats.grammar import scheme_pattern
from mpq.formats.registry import formats, integers_by_bits, names


def test_integers_are_known_by_their_bits() -> None:
    assert {bits: f"int{bits}" for bits in range(2, 9)}.items() <= integers_by_bits().items()


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file `five.py` beside those of `mpq/formats`, and the registry read anew, before and after."""
    monkeypatch.setattr(mpq.formats, "__path__", [*mpq.formats.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_found", {})
    yield tmp_path / "five.py"
    sys.modules.pop("mpq.formats.five", None)


def test_a_format_in_a_new_file_is_found(one_more: Path) -> None:
    one_more.write_text(
        "from mpq.formats.base import Format\n"
        "FORMATS = (Format('five', 3, 'levels', 'five levels', levels=(-1.0, -0.5, 0.0, 0.5, 1.0), radix=5),)\n"
    )
    importlib.invalidate_caches()
    assert "five" in names("levels")
    assert list(formats())[-3:] == list(names("floats"))
    assert formats()["five"].code_bytes(7) == 3  # three digits to a byte
    assert re.search(scheme_pattern(), "five-g16")


def test_two_formats_of_one_name_are_refused(one_more: Path) -> None:
    one_more.write_text("from mpq.formats.base import Format\nFORMATS = (Format('int4', 4, 'levels', '', levels=(0.0, 1.0)),)\n")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="two formats have one name"):
        formats()
