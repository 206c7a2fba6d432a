from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import mpq
from mpq.activations.calibrate import calibrate
from mpq.activations.errors import rounded_errors
from mpq.activations.ranges import ranges_of
from mpq.activations.rounding import rounded, simulated
from mpq.analyze.activations import _of_choosing
from mpq.errors import ConfigError, UsageError
from mpq.models.inputs.fit_to_model import fit_data
from mpq.models.running.comparison import Comparison, Part, metric_named
from mpq.models.running.reference import Reference
from mpq.models.sources.load import from_module
from mpq.records.measured_activations import activation_lines
from mpq.records.sensitivity import read_sensitivity
from tests.activations.networks import images, residual
from tests.models.small import bits

CHOICES: dict[str, Any] = {"candidates": ("8",), "quantizer": "rtn", "method": "measure", "metric": "relative_mse"}


def analyzed(**more: Any) -> mpq.Sensitivity:
    return mpq.analyze(residual(), list(torch.split(images(16), 4)), **CHOICES, **more)


def test_the_error_of_each_group_is_that_of_the_model_with_it_rounded(tmp_path: Path) -> None:
    module = residual()
    before = bits(module)
    table = mpq.analyze(module, list(torch.split(images(16), 4)), output=tmp_path / "t.jsonl", **CHOICES, activations=("8", "8d"))
    assert bits(module) == before
    static = [(name, "a8") for name in ("first", "second", "left", "cat.0.0", "average.0", "head")]
    assert list(table.activations) == [*static, ("head", "a8d")]
    measured = table.activations["second", "a8"]
    assert measured.layers == ("second",)
    assert measured.work == 4 * 36 * 36
    assert len(measured.methods) == len(measured.seen) == 2
    assert len(measured.errors) == 12
    assert all(error is not None and error > 0 for error in measured.errors)
    assert read_sensitivity(tmp_path / "t.jsonl").activations == table.activations
    lines = activation_lines(table.finish, table.activations)
    assert lines[0].startswith("activations in a8: 6 groups, all together have an error of ")


def test_a_group_rounded_alone_gives_the_error_that_was_recorded() -> None:
    table = analyzed(activations="8")
    module = residual()
    samples = fit_data(list(torch.split(images(16), 4)), model=from_module(module), source="memory").split_as(table.header.data)
    reference = Reference(module, samples.calibration, metric_named("relative_mse"))
    found = []
    for index, batch in enumerate(samples.calibration.batches):
        with torch.no_grad(), simulated(module, {"x": table.activations["left", "a8"].group}):
            output = module(*batch.args)
        found.append(reference.compared(index, (output,)))
    recorded = torch.tensor(table.activations["left", "a8"].errors, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(found), recorded, rtol=1e-4, atol=0)


def test_a_range_has_the_least_squared_error_of_the_logits_of_a_model_that_is_sure() -> None:
    module = residual()
    with torch.no_grad():
        module.get_parameter("head.weight").mul_(1000)
    choices = CHOICES | {"metric": "kl_divergence", "activations": "8"}
    table = mpq.analyze(module, list(torch.split(images(16), 4)), **choices)
    data = fit_data(list(torch.split(images(16), 4)), model=from_module(module), source="memory").split_as(table.header.data).calibration
    reference = Reference(module, data, metric_named("relative_mse"))
    for calibrated in calibrate(module, data.batches, table.header.layers)[0]:
        group = table.activations[calibrated.candidate.name, "a8"].group
        for tensor, histogram in zip(group.tensors, calibrated.histograms, strict=True):
            errors: dict[Any, float] = {
                (each.scale, each.zero_point): float(
                    rounded_errors(
                        reference, {r: partial(rounded, scale=each.scale, zero_point=each.zero_point) for r in tensor.readers}
                    ).mean()
                )
                for each in ranges_of(histogram).values()
            }
            assert errors[tensor.scale, tensor.zero_point] == min(errors.values())


def test_probabilities_and_other_metrics_choose_ranges_by_themselves() -> None:
    for part in (Part("0", "kl_divergence", probabilities=True), Part("0", "kl_divergence", mask="classes"), Part("0", "cosine")):
        metric = Comparison([part])
        assert _of_choosing(metric) is metric
    assert _of_choosing(Comparison([Part("0", "kl_divergence")])).name == "relative_mse"


def test_activations_are_added_to_a_finished_analysis_and_not_measured_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    plain = analyzed(output=path)
    assert plain.activations == {}
    more = analyzed(output=path, activations="8")
    assert {name for name, _ in more.activations} == {"first", "second", "left", "cat.0.0", "average.0", "head"}
    assert more.errors.keys() == plain.errors.keys()
    length = path.stat().st_size
    assert analyzed(output=path).activations == more.activations
    assert analyzed(output=path, activations="8").activations == more.activations
    assert path.stat().st_size == length


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="activations is '4': use 8 or 8d"):
        analyzed(activations="4")
    with pytest.raises(UsageError, match="--activations 8 needs samples"):
        mpq.analyze(residual(), None, candidates=("8",), method="weight", quantizer="rtn", activations="8")
