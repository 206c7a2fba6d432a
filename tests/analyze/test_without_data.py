"""An analysis without data: weight errors under their own name."""

import re
from pathlib import Path
from typing import Any

import pytest

import mpq
from mpq.analyze.without_data import METRIC, analyze_without_data
from mpq.config import AnalysisSettings
from mpq.errors import UsageError
from mpq.models.running.swap import tensor_of
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import read_sensitivity
from tests.analyze.methods.test_weight import CHOICES, means
from tests.models.small import data, mlp, tied


def test_without_data_the_errors_are_those_of_the_weights_and_are_called_so(tmp_path: Path) -> None:
    model, path = mlp(), tmp_path / "t.jsonl"
    mpq.analyze(model, None, method="weight", output=path, **CHOICES)
    table = read_sensitivity(path)
    assert (table.metric, table.header.data, table.finished) == ("weight_error", {}, True)
    assert {layer.name: layer.operator for layer in table.layers} == {"0": "linear", "3": "linear", "5": "linear"}
    weight = tensor_of(model, "0.weight").detach()
    scale = weight.abs().amax(1, keepdim=True) / 7
    wrong = (weight / scale).round().clamp(-8, 7) * scale - weight
    assert means(table)["0"] == pytest.approx(float(wrong.square().sum() / weight.square().sum()), rel=0.02)
    result = mpq.search(table, "6bits")
    assert result.plan.evidence["metric"] == "weight_error"
    assert result.plan.data == {}


def test_an_analysis_without_data_resumes_and_is_not_that_with_data(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    mpq.analyze(mlp(), None, method="weight", output=path, **CHOICES | {"candidates": ("4",)})
    kept = path.read_bytes().splitlines()[1:4]
    mpq.analyze(mlp(), None, method="weight", output=path, **CHOICES)
    assert path.read_bytes().splitlines()[1:4] == kept
    with pytest.raises(mpq.MpqError, match="holds an analysis with another data source"):
        mpq.analyze(mlp(), data(24), method="weight", output=path, **CHOICES)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"method": "measure"}, "--method measure needs data: give --calib FILE, or --method weight, which needs none"),
        ({"method": "weight", "quantizer": "gptq"}, "--quantizer gptq needs data: give --calib FILE, or --quantizer mse"),
        (
            {"method": "weight", "metric": "top1"},
            "--metric and --outputs need data: give --calib FILE; without data, the metric is weight_error",
        ),
    ],
)
def test_what_needs_data_is_refused_without(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        mpq.analyze(mlp(), None, **choices)


def settings(**choices: Any) -> AnalysisSettings:
    return AnalysisSettings(**{"method": "weight", "candidates": ("4",)} | choices)


def test_progress_is_told_for_each_value() -> None:
    told: list[tuple[int, int]] = []
    table = analyze_without_data(
        from_module(mlp()),
        settings(candidates=("4", "8")),
        output=None,
        path=None,
        on_progress=lambda done, total, _: told.append((done, total)),
    )
    assert told[-1] == (6, 6)
    assert table.finished
    assert table.metric == METRIC == "weight_error"


def test_a_quantizer_is_chosen_that_needs_no_statistics() -> None:
    header = analyze_without_data(from_module(mlp()), settings(), output=None, path=None, on_progress=lambda *_: None).header
    assert header.settings == {"metric": "weight_error", "probabilities": False, "method": "weight", "quantizer": "mse"}
    assert len(header.notes) == 2
    assert header.data == {}
    assert set(header.versions) == {"mpq", "torch", "python"}


def test_layers_can_be_chosen_and_tied_ones_are_one() -> None:
    model = from_module(tied())
    table = analyze_without_data(model, settings(ignore=("body",)), output=None, path=None, on_progress=lambda *_: None)
    assert [(layer.name, layer.parameters) for layer in table.layers] == [("embedding", ("embedding.weight", "head.weight"))]


def test_a_finished_journal_is_read_and_nothing_is_computed_again(tmp_path: Path) -> None:
    path, told = tmp_path / "t.jsonl", list[int]()
    first = analyze_without_data(from_module(mlp()), settings(), output=path, path=None, on_progress=lambda *_: None)
    again = analyze_without_data(from_module(mlp()), settings(), output=path, path=None, on_progress=lambda done, *_: told.append(done))
    assert told == []
    assert again.frame()["error"].tolist() == first.frame()["error"].tolist()
