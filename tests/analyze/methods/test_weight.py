"""Weight errors in the unit of the metric, and under their own name without data."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpq
from mpq.errors import ModelError
from mpq.records.sensitivity import Sensitivity
from tests.models.small import data, mlp

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

    with pytest.raises(ModelError, match=r"^no change of a weight reaches the outputs, so weight errors cannot be scaled to relative_mse"):
        mpq.analyze(Silent().eval(), data(24), method="weight", metric="relative_mse", **CHOICES)
