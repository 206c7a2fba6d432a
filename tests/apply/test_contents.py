"""What an artifact will hold, checked against its plan."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mpq.apply.contents import checked_layers, contents_of, metric_of
from mpq.errors import ApplyError, MismatchError
from mpq.models.running.comparison import Comparison
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.metrics import RelativeMSE
from mpq.models.sources.load import from_module
from mpq.recovery.base import State
from mpq.recovery.run import Recovered
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.registry import quantizer_named
from tests.apply.making import in_memory, plan_of
from tests.models.small import data, mlp

MODEL = in_memory("mlp")
PLAN = plan_of(MODEL, "mlp")
LAYERS = checked_layers(PLAN, MODEL)


def one(name: str) -> QuantizedWeight:
    return Variants(MODEL.module, LAYERS, quantizer_named("rtn")).quantized(name, PLAN.layers[name])


def recovered(**tensors: torch.Tensor) -> Recovered:
    return Recovered(State({}, {name.replace("__", "."): tensor for name, tensor in tensors.items()}), ())


def test_the_layers_are_those_of_the_plan() -> None:
    assert [layer.name for layer in LAYERS] == list(PLAN.layers)


def test_a_plan_whose_constant_part_is_another_is_refused() -> None:
    other = replace(PLAN, rest=replace(PLAN.rest, data_bytes=PLAN.rest.data_bytes + 4))
    with pytest.raises(MismatchError) as caught:
        checked_layers(other, MODEL)
    assert str(caught.value) == (
        f"the plan's 'rest' says {PLAN.rest.data_bytes + 4} bytes of data and {PLAN.rest.header_bytes} of header, this model has "
        f"{PLAN.rest.data_bytes} and {PLAN.rest.header_bytes}: analyze and search again with these versions of mpq and torch"
    )


def test_the_file_has_the_bytes_that_the_plan_predicts() -> None:
    assert contents_of(PLAN, MODEL, LAYERS, recovered(), one).file_bytes == PLAN.size.file_bytes


def test_a_tensor_that_is_not_stored_is_refused() -> None:
    with pytest.raises(ApplyError, match=r"^recovery changed 'none', which is not stored by itself: this is a bug in mpq"):
        contents_of(PLAN, MODEL, LAYERS, recovered(none=torch.ones(2)), one)


def test_the_metric_is_the_plans_or_chosen_again() -> None:
    split: Any = SimpleNamespace(first=data(8))
    recorded = [{"output": "output", "metric": "relative_mse"}]
    assert metric_of(replace(PLAN, evidence={"outputs": recorded}), MODEL, split).name == RelativeMSE.name
    assert metric_of(replace(PLAN, evidence={"metric": "cosine"}), MODEL, split).name == "cosine"


class Detector(nn.Module):
    """Returns its logits, boxes, and scores without one row for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.body(x)
        return {"logits": logits, "boxes": logits + 1, "scores": logits.flatten()[:3]}


def test_a_plan_that_names_no_outputs_compares_the_logits_alone() -> None:
    split: Any = SimpleNamespace(first=data(8))
    found = metric_of(replace(PLAN, evidence={"metric": "kl_divergence"}), from_module(Detector().eval()), split)
    assert isinstance(found, Comparison)
    assert [(part.output, part.metric, part.weight) for part in found.parts] == [("logits", "kl_divergence", 1.0)]
    assert metric_of(replace(PLAN, evidence={"metric": "own:metric"}), MODEL, split).name == "kl_divergence"
