import json
from pathlib import Path

from tests.cli.typed import done, refused


def test_the_status_of_a_journal_says_who_measured_what(folder: Path) -> None:
    (journal,) = folder.glob("*.study.journal")
    found = done(f"search --status {journal.name}").out
    assert found.startswith("study 4.5bits of layers, ")
    assert ", process " in found
    last = found.splitlines()[-1]
    assert "given up early, 0 at work; lowest error " in last
    assert last.endswith(" bits per weight")
    (state,) = json.loads(done(f"search --status {journal.name} --json").out)
    assert last.startswith(f"{state['measured']} plans measured, ")
    assert (state["running"], state["lost"], len(state["workers"])) == (0, 0, 1)


def test_the_status_of_a_database(folder: Path) -> None:
    done("search --budget 4.5bits --trials 2 --storage sqlite:///study.db -o other.yaml")
    assert "lowest error" in done("search --status sqlite:///study.db").out


def test_what_is_no_storage_is_refused(folder: Path) -> None:
    assert (
        refused("search --status plan.yaml", 2) == "--status plan.yaml is neither the URL of a storage nor a .study.journal that is there"
    )


def test_a_database_that_is_not_there_is_refused_and_not_made(folder: Path) -> None:
    expected = "--status sqlite:///typo.db: there is no file typo.db; begin a study with mpq search --storage"
    assert refused("search --status sqlite:///typo.db", 2) == expected
    assert not (folder / "typo.db").exists()
