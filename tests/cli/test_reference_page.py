from mpq.cli.reference_page import reference
from tests.cli.typed import ROOT


def test_the_reference_of_the_command_line_is_fresh() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run: python -m mpq.cli.reference_page > docs/cli.md"


def test_the_reference_names_every_command_with_an_example() -> None:
    sections = reference().split("\n## mpq ")[1:]
    names = [section.partition("\n")[0] for section in sections]
    assert {"analyze", "search", "apply", "check"} < set(names)
    assert [name for name, section in zip(names, sections, strict=True) if f"```bash\nmpq {name}" not in section] == []
