"""Commands say what they replace: a plan, or the artifact of one, with other schemes than the new."""

from pathlib import Path

from mpq.records.plan import read_plan
from tests.cli.typed import done


def replaced(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("replaces ")]


def test_a_search_names_the_plan_that_it_replaces(folder: Path) -> None:
    old = read_plan(folder / "plan.yaml").size
    said = replaced(done("search --budget 6bits --trials 0").err)
    bits = f"{old.effective_bits:.3f}".rstrip("0")
    assert said == [
        f"replaces plan.yaml, which held another plan for 4.5bits (layers): {bits} bits per weight, {old.file_bytes:,} bytes; "
        "use --output to keep both"
    ]
    assert replaced(done("search --budget 6bits --trials 0").err) == []


def test_apply_names_the_artifact_of_another_plan(folder: Path) -> None:
    old = read_plan(folder / "plan.yaml").size
    assert replaced(done("apply plan.yaml --no-recovery").err) == []
    done("search --budget 6bits --trials 0 --output other.yaml")
    bits = f"{old.effective_bits:.3f}".rstrip("0")
    assert replaced(done("apply other.yaml --no-recovery").err) == [
        f"replaces model.mpq.safetensors, which held the artifact of another plan: {bits} bits per weight, {old.file_bytes:,} bytes; "
        "use --output to keep both"
    ]


def test_a_file_of_another_kind_is_named_as_such(folder: Path) -> None:
    (folder / "plan.yaml").write_text("a: 1\n")
    said = replaced(done("search --budget 6bits --trials 0").err)
    assert said == ["replaces plan.yaml, which is not a file that mpq can read; use --output to keep both"]
