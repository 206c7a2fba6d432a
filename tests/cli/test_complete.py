from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpq.cli import complete
from mpq.export.registry import TARGETS
from mpq.files import Journal
from mpq.records.plan import write_plan
from mpq.search.run import search
from tests.small import linear, table

TABLE = table([linear("conv1", 8, 64), linear("head", 8, 64)], {name: {"int4": 1.0, "int8": 0.5} for name in ("conv1", "head")})


def at(**params: Any) -> Any:
    return SimpleNamespace(params=params)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Journal.create(tmp_path / "m.sensitivity.jsonl", TABLE.header.to_dict()).close()
    write_plan(search(TABLE, "6bits").plan, tmp_path / "plan.yaml")
    return tmp_path


def test_names_of_a_registry_come_with_their_words() -> None:
    assert complete.named(TARGETS)("on") == [("onnx", TARGETS["onnx"])]
    assert complete.named({"a": "x"}, "auto")("a") == [("auto", ""), ("a", "x")]


@pytest.mark.usefixtures("here")
def test_layers_are_those_of_the_plan_or_of_the_only_analysis() -> None:
    assert complete.layer_of_plan(at(plan=Path("plan.yaml")), "h") == ["head"]
    assert complete.layer_of_analysis(at(), "") == ["conv1", "head"]
    assert complete.layer_of_analysis(at(sensitivity=Path("m.sensitivity.jsonl")), "c") == ["conv1"]


@pytest.mark.usefixtures("here")
def test_a_pin_is_a_layer_then_one_of_its_schemes() -> None:
    assert complete.pin(at(), "he") == ["head="]
    assert complete.pin(at(), "head=int") == ["head=int4", "head=int8"]
    assert complete.pin(at(), "*=int8") == ["*=int8"]
    assert complete.schemes_of_layers(at(), "head=int4") == ["head=int4"]
    assert complete.schemes_of_layers(at(), "head=int4,") == ["head=int4,int8"]
    assert complete.scheme(at(), "int4")[0] == "int4"


def test_candidates_are_completed_after_the_last_comma() -> None:
    assert complete.candidates("fi") == ["fine"]
    assert complete.candidates("4,fp1") == ["4,fp16"]
    assert "4,4" not in complete.candidates("4,4")


def test_nothing_is_completed_and_nothing_fails_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert complete.layer_of_plan(at(plan=None), "") == complete.layer_of_analysis(at(), "") == complete.pin(at(), "a") == []
    (tmp_path / "m.sensitivity.jsonl").write_text("no journal\n")
    (tmp_path / "plan.yaml").write_text("no: plan\n")
    assert complete.layer_of_plan(at(plan=None), "") == complete.layer_of_analysis(at(), "") == []
