from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mpq
from mpq.analyze.resume import open_journal
from mpq.errors import MismatchError
from mpq.formats.scheme import parse_scheme
from mpq.records.sensitivity import read_sensitivity
from mpq.records.sensitivity_header import SensitivityHeader
from tests.models.small import data, mlp
from tests.small import linear, table

LAYERS = [linear("a", 4, 64), linear("b", 4, 64)]
HEADER = table(LAYERS, {name: {"int4": 1.0, "int8": 0.5} for name in "ab"}).header
INT4, INT8 = parse_scheme("int4"), parse_scheme("int8")


def line(layer: str, scheme: str) -> dict[str, Any]:
    return {"layer": layer, "scheme": scheme, "first": 0, "errors": [0.5, 0.25]}


def started(path: Path) -> Path:
    _, journal = open_journal(HEADER, path)
    assert journal is not None
    journal.append(line("a", "int4"), line("b", "int8"))
    journal.close()
    return path


def changed(**parts: Any) -> SensitivityHeader:
    merged: dict[str, Any] = {name: {**getattr(HEADER, name), **value} for name, value in parts.items()}
    return replace(HEADER, **merged)


def test_without_a_path_there_is_no_journal() -> None:
    found, journal = open_journal(HEADER, None)
    assert journal is None
    assert len(found.missing) == 4


def test_a_new_journal_holds_the_header(tmp_path: Path) -> None:
    open_journal(HEADER, tmp_path / "t.jsonl")
    assert read_sensitivity(tmp_path / "t.jsonl").header == HEADER


def test_figures_are_taken_over(tmp_path: Path) -> None:
    found, _ = open_journal(HEADER, started(tmp_path / "t.jsonl"))
    assert found.errors["a", INT4].tolist() == [0.5, 0.25]
    assert found.missing == [(LAYERS[0], INT8), (LAYERS[1], INT4)]


def test_more_candidates_keep_the_figures_and_rewrite_the_header(tmp_path: Path) -> None:
    more = replace(HEADER, candidates={name: (INT4, INT8, parse_scheme("fp16")) for name in "ab"})
    found, journal = open_journal(more, started(tmp_path / "t.jsonl"))
    assert len(found.missing) == 4
    assert journal is not None
    journal.append(line("a", "fp16"))
    journal.close()
    again = read_sensitivity(tmp_path / "t.jsonl")
    assert again.header == more
    assert len(again.missing) == 3


def test_fewer_candidates_leave_the_other_figures_in_the_file(tmp_path: Path) -> None:
    path = started(tmp_path / "t.jsonl")
    fewer = replace(HEADER, candidates=dict.fromkeys("ab", (INT4,)))
    found, _ = open_journal(fewer, path)
    assert list(found.errors) == [("a", INT4)]
    back, _ = open_journal(HEADER, path)
    assert set(back.errors) == {("a", INT4), ("b", INT8)}


def test_a_header_is_rewritten_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = started(tmp_path / "t.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    fewer = replace(HEADER, candidates=dict.fromkeys("ab", (INT4,)))
    open_journal(fewer, path)
    assert list(read_sensitivity(path).errors) == [("a", INT4)]


@pytest.mark.parametrize(
    ("header", "difference"),
    [
        (changed(model={"sha256": "c" * 64}), "model (aaaaaaaaaaaa…, now cccccccccccc…)"),
        (changed(data={"sha256": "c" * 64}), "data (bbbbbbbbbbbb…, now cccccccccccc…)"),
        (changed(data={"held_out": 0.5}), "held-out share (0.25, now 0.5)"),
        (changed(data={"seed": 1}), "seed (0, now 1)"),
        (changed(settings={"metric": "relative_mse"}), "metric (kl_divergence, now relative_mse)"),
        (changed(settings={"quantizer": "mse"}), "quantizer (rtn, now mse)"),
        (changed(settings={"method": "fisher"}), "method (measure, now fisher)"),
    ],
)
def test_another_analysis_is_refused_and_left_alone(tmp_path: Path, header: SensitivityHeader, difference: str) -> None:
    path = started(tmp_path / "t.jsonl")
    before = path.read_bytes()
    with pytest.raises(MismatchError) as error:
        open_journal(header, path)
    assert str(error.value) == f"{path} holds an analysis with another {difference}: delete it, or write elsewhere with --output"
    assert path.read_bytes() == before


def test_another_place_of_the_same_model_is_no_difference(tmp_path: Path) -> None:
    found, _ = open_journal(changed(model={"path": "elsewhere.pt2"}), started(tmp_path / "t.jsonl"))
    assert len(found.errors) == 2
    assert read_sensitivity(tmp_path / "t.jsonl").header.model["path"] == "elsewhere.pt2"


@pytest.mark.parametrize("method", ["measure", "fisher", "weight"])
def test_an_analysis_killed_after_any_line_or_within_it_ends_in_the_same_lines(tmp_path: Path, method: str) -> None:
    path = tmp_path / "t.jsonl"
    choices: dict[str, Any] = {"candidates": ("2", "8"), "quantizer": "rtn", "method": method}
    mpq.analyze(mlp(), data(), output=path, **choices)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    starts = [sum(map(len, lines[:count])) for count in range(1, len(lines) + 1)]
    for start in starts:
        for cut in (start, start + 9):
            path.write_bytes(whole[:cut])
            mpq.analyze(mlp(), data(), output=path, **choices)
            assert path.read_bytes().splitlines(keepends=True)[:-1] == lines[:-1], cut  # the last line holds times
    assert [name.name for name in tmp_path.iterdir()] == ["t.jsonl"]
