"""Weight errors in the unit of the metric, and under their own name without data."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpq
from mpq.errors import ModelError, UsageError
from mpq.models.layers.assume import assume
from mpq.models.running.swap import tensor_of
from mpq.records.sensitivity import Sensitivity, read_sensitivity
from tests.models.small import data, experts, mlp, tied, up_and_down

CHOICES: dict[str, Any] = {"candidates": ("4", "8"), "quantizer": "rtn"}


def means(table: Sensitivity, scheme: str = "int4") -> dict[str, float]:
    return {name: table.mean(name, one) for name, one in table.errors if str(one) == scheme}


def test_with_data_one_measured_factor_brings_weight_errors_to_the_metric() -> None:
    samples = data(24)
    weights = means(mpq.analyze(mlp(), None, method="weight", **CHOICES))
    measured = means(mpq.analyze(mlp(), samples, method="measure", metric="relative_mse", **CHOICES))
    table = mpq.analyze(mlp(), samples, method="weight", metric="relative_mse", **CHOICES)
    logs = np.log([measured[name] / weights[name] for name in weights])
    factor = math.exp(logs.mean())
    assert table.metric == "relative_mse"
    for name, error in means(table).items():
        assert error == pytest.approx(factor * weights[name], rel=1e-4)
    (note,) = (table.finish or {})["notes"]
    expected = (
        f"method weight: weight errors times {factor:.3g} stand for relative_mse; measured on 3 layers at int4, "
        f"this factor varies by {math.exp(logs.std()):.2g} times from layer to layer"
    )
    assert note == expected


def test_the_self_check_is_then_near_one() -> None:
    table = mpq.analyze(mlp(), data(24), method="weight", metric="relative_mse", candidates=("2", "4", "8"), quantizer="rtn")
    assert abs((table.finish or {})["check"]["additive"]["bias"]) < math.log(3)


def test_a_model_whose_outputs_do_not_depend_on_its_weights_is_refused() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            same: torch.Tensor = x + 0 * self.body(x)
            return same

    with pytest.raises(ModelError, match=r"^no change of a weight reaches the outputs, so weight errors cannot be put in relative_mse"):
        mpq.analyze(Silent().eval(), data(24), method="weight", metric="relative_mse", **CHOICES)


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
        ({"method": "measure"}, "--method measure needs data: give --calib FILE, or --method weight, which does without"),
        ({"method": "weight", "quantizer": "gptq"}, "--quantizer gptq needs data: give --calib FILE, or --quantizer mse"),
        (
            {"method": "weight", "metric": "top1"},
            "--metric and --outputs need data: give --calib FILE; without, the metric is weight_error",
        ),
    ],
)
def test_what_needs_data_is_refused_without(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        mpq.analyze(mlp(), None, **choices)


def test_modules_say_how_their_weights_are_laid_out() -> None:
    found = {layer.name: (layer.operator, layer.axes) for layer in assume(up_and_down()).layers}
    assert found == {"down": ("conv", (0,)), "up": ("conv", (1,))}
    assert {layer.name: layer.parameters for layer in assume(tied()).layers} == {
        "embedding": ("embedding.weight", "head.weight"),
        "body": ("body.weight",),
    }
    assert [layer.name for layer in assume(experts()).layers] == ["up", "down", "gate"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit itself
        scripted: nn.Module = torch.jit.trace(up_and_down(), torch.zeros(1, 2, 8, 8))  # type: ignore[no-untyped-call]
    assert {layer.name: layer.axes for layer in assume(scripted).layers} == {"down": (0,), "up": (1,)}
    recurrent = assume(nn.LSTM(4, 8))
    assert {layer.operator for layer in recurrent.layers} == {"recurrent"}
    norms = assume(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm([4, 8])))
    assert [layer.name for layer in norms.layers] == ["0"]
