import json
from pathlib import Path

from mpq.cli.search_richer import richer_lines
from mpq.search.richer import Richer
from tests.cli.typed import done


def test_a_search_names_richer_candidates_and_the_option(folder: Path) -> None:
    (source,) = folder.glob("*.sensitivity.jsonl")
    ran = done(f"search {source.name} --budget 4.5bits --trials 0 --output a.yaml")
    assert "richer candidates at this size: predicted error 0." in ran.err + ran.out
    assert "times with fine (slower once packed, few exports take it)" in ran.err + ran.out
    assert "add it to mpq analyze --candidates" in ran.err + ran.out
    found = json.loads(done(f"search {source.name} --budget 4.5bits --trials 0 --output a.yaml --json").out)["richer_candidates"]
    assert {each["name"] for each in found} == {"coded", "fine"}
    assert all(0 < each["ratio"] <= 0.8 for each in found)
    restricted = done(f"search {source.name} --budget 4.5bits --trials 0 --output a.yaml --for onnx")
    assert "richer" not in restricted.err + restricted.out


def test_each_set_is_named_with_what_it_costs() -> None:
    assert richer_lines([Richer("coded", 0.3456), Richer("fine", 0.5)]) == [
        "richer candidates at this size: predicted error 0.35 times with coded (smaller in files alone), "
        "0.5 times with fine (slower once packed, few exports take it)",
        "estimated without the model; to measure one, add it to mpq analyze --candidates",
    ]
    assert richer_lines([]) == []
