import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.errors import MismatchError, UsageError
from mpq.formats.scheme import Scheme
from mpq.models.inputs.fit_to_model import fit_data, refit_data
from mpq.models.running.comparison import metric_named
from mpq.models.running.fake_quantized import Variants
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.quantized import QuantizedWeight
from mpq.tensors.quantizers.rtn import RoundToNearest
from tests.models.small import bits, data, mlp
from tests.small import schemes

PLAN = dict(zip("035", schemes("int2", "int4", "int8"), strict=True))


def analyzed() -> Sensitivity:
    return mpq.analyze(mlp(), data(), candidates=("2", "4", "8"), quantizer="rtn")


def test_a_plan_is_measured_like_a_copy_with_all_its_weights_on_the_split_of_the_analysis() -> None:
    table, module = analyzed(), mlp()
    measurer = mpq.PlanMeasurer(module, data(), table)
    copied, metric = copy.deepcopy(module), metric_named("kl_divergence")
    with torch.no_grad():
        for name, value in Variants(module, table.layers, RoundToNearest()).weights(PLAN).items():
            copied.get_parameter(name).copy_(value)
        for found, part in zip((measurer.calibration(PLAN), measurer.held_out(PLAN)), data().split(0.25, 0), strict=True):
            expected = [metric.errors(metric.prepare([module(*b.args)]), [copied(*b.args)]) for b in part.batches]
            assert found.tolist() == torch.cat(expected).tolist()


def test_single_layers_are_measured_as_in_the_table() -> None:
    table = analyzed()
    measurer = mpq.PlanMeasurer(mlp(), data(), table)
    for (name, scheme), errors in table.errors.items():
        assert measurer.calibration({name: scheme}).tolist()[: len(errors)] == pytest.approx(errors.tolist(), rel=1e-5, abs=1e-12)


def test_the_model_is_unchanged_between_measurements() -> None:
    module = mlp()
    before = bits(module)
    measurer = mpq.PlanMeasurer(module, data(), analyzed())
    measurer.calibration(PLAN)
    measurer.held_out(PLAN)
    assert bits(module) == before


def test_a_plan_measured_in_parts_is_made_of_its_codes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, quantized = list[str](), Variants.quantized
    measurer = mpq.PlanMeasurer(mlp(), data(), analyzed())
    monkeypatch.setattr(measurer._variants, "_limit", 0)
    expected = measurer.calibration(PLAN)

    def counted(self: Variants, name: str, scheme: Scheme) -> QuantizedWeight:
        made.append(name)
        return quantized(self, name, scheme)

    monkeypatch.setattr(Variants, "quantized", counted)
    measurer._variants._cache.clear()
    parts = list(measurer.calibration_parts(PLAN))
    assert len(parts) > 1
    assert (np.concatenate(parts).tolist(), made) == (expected.tolist(), ["0", "3", "5"])


def test_a_measurement_in_parts_ends_before_the_next_begins() -> None:
    module = mlp()
    before, measurer = bits(module), mpq.PlanMeasurer(module, data(), analyzed())
    first, second = measurer.calibration_parts(PLAN), measurer.calibration_parts(PLAN)
    assert len(next(iter(first))) == 8
    others: list[Callable[[], object]] = [
        lambda: next(iter(second)),
        lambda: measurer.held_out(PLAN),
        lambda: measurer.slopes(PLAN),
        lambda: measurer.score(lambda _: 0.0, {}),
    ]
    for other in others:
        with pytest.raises(UsageError) as error:
            other()
        assert str(error.value) == "a measurement in parts has not ended: exhaust or close its iterator before the next measurement"
    del first
    assert bits(module) == before
    assert len(measurer.held_out(PLAN)) == 6


def test_another_model_and_other_data_are_refused() -> None:
    table = analyzed()
    with pytest.raises(MismatchError) as error:
        mpq.PlanMeasurer(mlp(1), data(), table)
    expected = f"the analysis was made with another model (sha256 {table.header.model['sha256'][:12]}…, this one has "
    assert str(error.value).startswith(expected)
    with pytest.raises(MismatchError, match=r"^the analysis was made with another data \(sha256 "):
        mpq.PlanMeasurer(mlp(), data(seed=2), table)


def test_batches_are_read_as_those_of_the_analysis() -> None:
    batches = [torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]  # time first
    module = mlp()
    table = mpq.analyze(module, batches, candidates=("2", "4", "8"), quantizer="rtn", batch_axis=1)
    measurer = mpq.PlanMeasurer(module, batches, table)
    for (name, scheme), errors in table.errors.items():
        assert measurer.calibration({name: scheme}).tolist()[: len(errors)] == pytest.approx(errors.tolist(), rel=1e-5, abs=1e-12)


def test_the_input_that_masks_padding_is_the_one_of_the_analysis() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Linear(8, 5)

        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            out: Tensor = self.body(x * keep[..., None])
            return out

    keep = torch.tensor([[1, 1, 1, 0]]).repeat(12, 1)
    batches = [{"x": torch.randn(12, 4, 8, generator=torch.Generator().manual_seed(0)), "keep": keep}]
    module = Padded().eval()
    samples = fit_data(batches, model=from_module(module), source="memory", mask="keep")
    table = mpq.analyze(module, samples, candidates=("4", "8"), quantizer="rtn")
    facts = {**table.header.data, "mask": "keep"}
    assert refit_data(batches, model=from_module(module), facts=facts).sha256 == samples.sha256
    assert refit_data(batches, model=from_module(module), facts={}).sha256 != samples.sha256


def test_a_search_with_the_real_model_returns_a_plan_within_its_budget() -> None:
    table = analyzed()
    found = mpq.search(table, "6bits", measurer=mpq.PlanMeasurer(mlp(), data(), table), trials=6)
    assert found.plan.size.effective_bits <= 6
    assert found.plan.evidence["measured"]["samples"] == {"calibration": 18, "held_out": 6}


def test_a_figure_of_the_users_own_sees_the_quantized_model_and_the_model_stays() -> None:
    table, module = analyzed(), mlp()
    measurer = mpq.PlanMeasurer(module, data(), table)
    before = module.get_parameter(table.layers[0].parameters[0]).detach().clone()

    def own(model: nn.Module) -> torch.Tensor:
        return (model.get_parameter(table.layers[0].parameters[0]) - before).abs().sum()

    assert measurer.score(own, {}) == 0.0
    assert measurer.score(own, PLAN) > 0.0
    assert measurer.score(own, {}) == 0.0
    with pytest.raises(UsageError, match=r"^the metric returned nan: it must return a finite number, or one per sample$"):
        measurer.score(lambda _: math.nan, {})
    assert measurer.score(lambda _: [True, False], {}).tolist() == [1.0, 0.0]
    with pytest.raises(UsageError, match=r"^the metric returned nothing: it must return a finite number, or one per sample$"):
        measurer.score(lambda _: [], {})


def test_unquantized_tensors_are_rounded_in_every_measurement_but_not_in_the_reference() -> None:
    table, module = analyzed(), mlp()
    measurer = mpq.PlanMeasurer(module, data(), table, rest_dtype="bf16")
    copied, metric = copy.deepcopy(module), metric_named("kl_divergence")
    with torch.no_grad():
        for name, tensor in copied.named_parameters():
            if name not in ("0.weight", "3.weight", "5.weight"):
                tensor.copy_(tensor.bfloat16())
        held_out = data().split(0.25, 0)[1]
        expected = [metric.errors(metric.prepare([module(*b.args)]), [copied(*b.args)]) for b in held_out.batches]
    assert measurer.held_out({}).tolist() == torch.cat(expected).tolist()
    assert max(measurer.held_out({})) > 0
    plan = mpq.search(table, "6bits", rest="bf16", measurer=measurer, trials=0).plan
    assert plan.rest.dtype == "bf16"
    assert plan.evidence["rest"]["held_out"] == pytest.approx(float(measurer.held_out({}).mean()), rel=1e-3)
    assert plan.evidence["measured"]["held_out"] == pytest.approx(float(measurer.held_out(plan.layers).mean()), rel=1e-3)


def test_weights_are_quantized_with_progress_and_once(tmp_path: Path) -> None:
    told = list[tuple[int, int, str]]()
    measurer = mpq.PlanMeasurer(mlp(), data(), analyzed(), cache=tmp_path, on_progress=lambda *step: told.append(step))
    for _ in range(2):
        measurer.calibration(PLAN)
    assert told == [(1, 3, "quantizing 0 int2"), (2, 3, "quantizing 3 int4"), (3, 3, "quantizing 5 int8")]
    measurer.slopes(PLAN)
    assert told[3:] == [
        (done, 9, f"quantizing {name}")
        for done, name in ((4, "0 int4"), (5, "0 int8"), (6, "3 int2"), (7, "3 int8"), (8, "5 int2"), (9, "5 int4"))
    ]
    assert measurer.notes == []


def test_a_cache_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    measurer = mpq.PlanMeasurer(mlp(), data(), analyzed(), cache=tmp_path / "file" / "cache")
    measurer.calibration(PLAN)
    (note,) = measurer.notes
    assert note.startswith(f"no more entries are written to the cache {tmp_path / 'file' / 'cache'}: ")
