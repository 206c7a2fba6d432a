from pathlib import Path

import pytest

from mpq.formats.scheme import parse_scheme
from mpq.records.latency import LatencyFacts, write_latencies
from mpq.records.sensitivity import Sensitivity
from mpq.records.time_frontier import Reached
from mpq.search.run import search
from mpq.search.time_frontier import time_frontier
from tests.small import linear, table

TIMES = {("a", "int4"): 1.0, ("a", "int8"): 3.0, ("b", "int4"): 2.0, ("b", "int8"): 2.5}


def made() -> Sensitivity:
    return table([linear("a", 8, 16), linear("b", 8, 16)], {"a": {"int4": 0.5, "int8": 0.1}, "b": {"int4": 0.3, "int8": 0.0}})


def written(folder: Path, found: Sensitivity, *, without: str = "", model: str | None = None) -> Path:
    times = {(layer, parse_scheme(text)): value for (layer, text), value in TIMES.items() if text != without}
    facts = LatencyFacts("onnxruntime", "abacus", "2", 1, model or str(found.header.model["sha256"]), 1, 0.25)
    write_latencies(folder / "m.latency.csv", facts, times)
    return folder / "m.latency.csv"


def test_corners_go_from_the_fastest_plan_to_the_one_of_least_error(tmp_path: Path) -> None:
    found = made()
    profile = time_frontier(found, written(tmp_path, found), search(found, "5bits", trials=0).plan)
    assert profile is not None
    assert [corner.milliseconds for corner in profile.corners] == pytest.approx([3.25, 3.75, 5.75])
    assert [corner.error for corner in profile.corners] == pytest.approx([0.8, 0.5, 0.1])
    assert profile.plan == Reached(3.25, 0.8)
    assert profile.times["a", parse_scheme("int8")] == 3.0


def test_pins_of_the_plan_hold(tmp_path: Path) -> None:
    found = made()
    plan = search(found, "32bits", trials=0, pins={"b": "int4"}).plan
    profile = time_frontier(found, written(tmp_path, found), plan)
    assert profile is not None
    assert [corner.milliseconds for corner in profile.corners] == pytest.approx([3.25, 5.25])


def test_other_files_have_no_frontier(tmp_path: Path) -> None:
    found = made()
    assert time_frontier(found, written(tmp_path, found, without="int8")) is None
    assert time_frontier(found, written(tmp_path, found, model="ab" * 32)) is None
    (tmp_path / "own.csv").write_text("layer,scheme,latency_ms\na,int4,1\n")
    assert time_frontier(found, tmp_path / "own.csv") is None
