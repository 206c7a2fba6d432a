"""The page of assumptions quotes what mpq prints."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "assumptions.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| Assumption")]
SOURCE = " ".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in sorted((ROOT / "mpq").rglob("*.py")))
QUOTES = [quote for row in ROWS for quote in re.findall(r'"([^"]+)"', row.split(" | ")[2]) if quote != "…"]


def test_every_row_says_what_is_assumed_how_it_is_checked_and_what_is_printed() -> None:
    assert len(ROWS) > 20
    assert all(len([cell for cell in row.strip("| ").split(" | ") if cell.strip()]) == 3 for row in ROWS)


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_one_that_mpq_prints(quote: str) -> None:
    parts = [part.strip() for part in re.split(r"…|\(…\)", quote) if len(part.strip()) > 1]
    assert parts
    missing = [part for part in parts if part.strip("()") not in SOURCE]
    assert not missing


@pytest.mark.parametrize("page", ["README.md", "docs/method/README.md", "docs/architecture.md"])
def test_the_page_is_linked(page: str) -> None:
    assert "assumptions.md" in (ROOT / page).read_text(encoding="utf-8")
