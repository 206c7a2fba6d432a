import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.analyze.methods.measure import Measure
from mpq.data.dataset import Data, data_from_batches
from mpq.formats.scheme import Scheme
from mpq.models.running.comparison import metric_named
from mpq.records.layer import Layer
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.matrix import from_matrix, to_matrix
from mpq.tensors.quantizers.registry import quantizer_named
from tests.analyze.making import context_of
from tests.models.small import MODELS, data, mlp

CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn", "method": "measure"}


def analyzed(module: nn.Module | None = None, samples: Data | None = None, **choices: Any) -> Sensitivity:
    return mpq.analyze(module or mlp(), samples or data(), **(CHOICES | choices))


def naive(module: nn.Module, samples: Data, table: Sensitivity, layer: Layer, scheme: Scheme) -> list[float]:
    """A deep copy of the model with one parameter replaced, run on every batch."""
    changed = copy.deepcopy(module)
    with torch.no_grad():
        weight = changed.state_dict()[layer.parameters[0]]
        matrix = quantizer_named("rtn").quantize(to_matrix(weight, layer.axes, layer.groups), scheme).dequantize()
        weight.copy_(from_matrix(matrix, layer.shape, layer.axes, layer.groups))
        metric, found = metric_named(table.metric, probabilities=bool(table.header.settings["probabilities"])), []
        for batch in samples.batches:
            found += metric.errors(metric.prepare([module(*batch.args)]), [changed(*batch.args)]).tolist()
    return [float(f"{value:.6g}") for value in found]


@pytest.mark.parametrize("kind", MODELS)
def test_a_figure_is_that_of_a_copy_with_one_weight_replaced_to_the_last_stored_digit(kind: str) -> None:
    build, inputs = MODELS[kind]
    module = build()
    samples = data_from_batches([inputs])
    table = analyzed(module, samples)
    calibration, _ = samples.split(0.25, 0)
    assert table.finished
    for (name, scheme), errors in table.errors.items():
        layer = next(layer for layer in table.layers if layer.name == name)
        assert errors.tolist() == naive(module, calibration, table, layer, scheme), (name, scheme)


def test_batches_of_another_size_continue_where_the_figures_end(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"

    def kill(number: int, total: int, what: str) -> None:
        if number == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyzed(samples=data(batch_size=8), output=path, on_progress=kill)
    table = analyzed(samples=data(batch_size=5), output=path)
    expected = analyzed(samples=data(batch_size=8))
    for key, errors in expected.errors.items():
        count = min(len(errors), len(table.errors[key]))  # where a negligible one ends depends on the batches
        assert count >= 8
        assert table.errors[key][:count].tolist() == pytest.approx(errors[:count].tolist(), rel=1e-3, abs=1e-6)


def test_progress_counts_up_to_its_total() -> None:
    calls: list[tuple[int, int]] = []

    def told(number: int, total: int, what: str) -> None:
        if "self-check" not in what and "quantizing" not in what:
            calls.append((number, total))

    analyzed(samples=data(40), on_progress=told)
    assert [number for number, _ in calls] == list(range(1, len(calls) + 1))
    assert calls[-1] == (len(calls), len(calls))
    totals = [total for _, total in calls]
    assert totals == sorted(totals, reverse=True)  # it shrinks when figures turn out to be negligible


class TwoBranches(nn.Module):
    """A sum of two layers, of which one counts for next to nothing on most samples, or for nothing."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small, self.share = nn.Linear(8, 4), nn.Linear(8, 4), share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.large(x) + self.share * self.small(x)
        return found


def counts(module: nn.Module, samples: Data, **choices: Any) -> dict[str, list[int]]:
    context = context_of(module.eval(), samples, [], metric="relative_mse", **choices)
    Measure().run(context)
    table = context.table
    return {layer.name: [table.count(layer.name, scheme) for scheme in table.header.candidates[layer.name]] for layer in table.layers}


@pytest.mark.parametrize(("samples", "batch", "first"), [(32, 4, 8), (64, 4, 12), (64, 16, 16), (16, 4, 8)])
def test_a_negligible_pair_gets_no_more_samples_after_a_quarter_and_eight(samples: int, batch: int, first: int) -> None:
    found = counts(TwoBranches(1e-4), data(samples, 8, batch_size=batch), candidates=("2", "3"))
    calibration = samples * 3 // 4
    assert found == {"large": 2 * [calibration], "small": 2 * [first]}


def test_a_pair_whose_error_is_not_negligible_gets_all_samples() -> None:
    assert counts(TwoBranches(1.0), data(64, 8, batch_size=4), candidates=("2", "3")) == {"large": [48, 48], "small": [48, 48]}


def test_errors_that_are_not_finite_are_never_negligible() -> None:
    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 4), nn.Linear(8, 4)
            self.original = self.first.weight.detach().clone()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            change = (self.first.weight - self.original).abs().max()
            found: torch.Tensor = self.last(x) + 0 * self.first(x) + 1e38 * change * 1e38
            return found

    context = context_of(Overflowing().eval(), data(64, 8, batch_size=4), [], metric="relative_mse", candidates=("2",))
    Measure().run(context)
    errors = context.table.errors["first", Scheme("int2")]
    assert len(errors) == 48
    assert bool((errors != errors).all())


def test_the_first_record_of_a_batch_says_where_its_samples_begin() -> None:
    saved: list[dict[str, Any]] = []
    Measure().run(context_of(mlp(), data(16, batch_size=4), saved, candidates=("2",)))
    assert [(one["layer"], one["first"], len(one["errors"])) for one in saved] == [
        (layer, first, 4) for first in (0, 4, 8) for layer in ("0", "3", "5")
    ]
