from mpq.analyze.methods.registry import METHODS
from mpq.cli.document_choices import page
from mpq.export.registry import TARGETS
from mpq.formats.registry import formats
from mpq.models.running.metric_registry import METRICS
from mpq.tensors.quantizers.registry import QUANTIZERS
from tests.cli.typed import ROOT


def test_the_page_of_choices_is_fresh() -> None:
    assert (ROOT / "docs" / "choices.md").read_text() == page(), "run: python -m mpq.cli.document_choices > docs/choices.md"


def test_every_name_has_a_row() -> None:
    text = page()
    assert [name for names in (formats(), QUANTIZERS, METRICS, METHODS, TARGETS) for name in names if f"\n| `{name}` |" not in text] == []


def test_bits_are_those_of_the_stored_codes() -> None:
    rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in page().splitlines() if line.startswith("| `")}
    assert (rows["`ternary`"], rows["`int3`"], rows["`nf4`"], rows["`bf16`"]) == ("1.6", "3", "4", "16")
