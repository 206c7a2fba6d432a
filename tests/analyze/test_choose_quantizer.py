import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpq
from mpq.analyze.prepare import prepare
from mpq.calibration.input_moments import statistics_for
from mpq.config import AnalysisSettings
from mpq.data.dataset import Data, data_from_batches
from mpq.errors import MismatchError, UsageError
from mpq.evidence.paired_test import compare
from mpq.formats.scheme import Scheme
from mpq.models.layers.discover import discover
from mpq.models.running.comparison import metric_named
from mpq.models.running.fake_quantized import Variants
from mpq.models.running.reference import Reference
from mpq.models.sources.load import from_module
from mpq.records.sensitivity import Sensitivity
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named
from tests.models.small import data, inputs, mlp
from tests.small import schemes

choosing = importlib.import_module("mpq.analyze.choose_quantizer")  # `mpq.analyze` is the function
METRIC = metric_named("relative_mse")
CHOICES: dict[str, Any] = {"candidates": ("2", "4", "8"), "quantizer": "rtn", "method": "measure"}


def analyzed(samples: Data | None = None, **choices: Any) -> Sensitivity:
    return mpq.analyze(mlp(), samples or data(), **(CHOICES | choices))


def chosen(
    name: str = "auto", *texts: str, module: nn.Module | None = None, samples: Data | None = None, data_free: bool = False
) -> tuple[str, str]:
    model, given = from_module(module or mlp()), samples or data(40)
    calibration, held_out = given.split(0.25, 0)
    layers = discover(model.module, calibration.batches).layers
    candidates = {layer.name: schemes(*(texts or ("int2", "int4", "int8"))) for layer in layers}
    found: tuple[str, str] = choosing.choose_quantizer(
        name, model, layers, candidates, calibration=calibration, held_out=held_out, metric=METRIC, data_free=data_free
    )
    return found


def test_every_quantized_layer_is_reported() -> None:
    model, lines = from_module(mlp()), list[tuple[int, int, str]]()
    layers = discover(model.module, data(40).batches).layers
    choosing.choose_quantizer(
        "auto",
        model,
        layers,
        {layer.name: schemes("int4") for layer in layers},
        calibration=data(30),
        held_out=data(10),
        metric=METRIC,
        data_free=False,
        on_progress=lambda *line: lines.append(line),
    )
    assert lines == 2 * [(number, len(layers), f"quantizing {layer.name} int4") for number, layer in enumerate(layers, start=1)]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_errors", lambda *_: pytest.fail("a quantizer was measured"))


@pytest.mark.usefixtures("unmeasured")
class TestNothingIsMeasured:
    @pytest.mark.parametrize("name", QUANTIZERS)
    def test_if_a_quantizer_is_named(self, name: str) -> None:
        assert chosen(name) == chosen(name, data_free=True) == (name, f"quantizer {name}: as asked")

    def test_if_the_name_is_unknown(self) -> None:
        with pytest.raises(UsageError, match=r"^'best' is not a quantizer: use one of rtn, mse, "):
            chosen("best")

    def test_without_data(self) -> None:
        assert chosen(data_free=True) == ("mse", "quantizer mse: the best that needs no data")

    def test_if_all_candidates_are_floating_point(self) -> None:
        assert chosen("auto", "fp16", "bf16") == ("mse", "quantizer mse: all candidates are floating point")


def correlated() -> tuple[nn.Module, Data]:
    """Inputs on few directions: what weight errors do to the output is nothing like their size."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 6)).eval()
    return module, data_from_batches([inputs(96, 4) @ inputs(4, 32, seed=5)])


def test_the_choice_and_its_figures_are_those_of_whole_models_on_held_out_samples() -> None:
    module, samples = correlated()
    calibration, held_out = samples.split(0.25, 0)
    layers = discover(module, calibration.batches).layers
    errors = {}
    for name in ("mse", "descent"):
        quantizer = quantizer_named(name)
        statistics = statistics_for(quantizer, module, layers, calibration)
        weights = Variants(module, layers, quantizer, statistics=statistics).weights({layer.name: Scheme("int4") for layer in layers})
        errors[name] = Reference(module, held_out, METRIC).errors(weights).numpy()
    assert compare(errors["descent"], errors["mse"]).better
    figures = ", ".join(f"{name} {found.mean():.4g}" for name, found in errors.items())
    assert chosen(module=module, samples=samples) == (
        "descent",
        f"quantizer descent: relative_mse on held-out samples near 4 bits: {figures}",
    )


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-0.1] * 30, "descent"),
        ([0.0] * 30, "mse"),
        ([0.1] * 30, "mse"),
        ([-1.0, 1.0] * 15 + [-0.1], "mse"),  # better on average, but not beyond noise
        ([-0.1], "mse"),  # one sample proves nothing
    ],
)
def test_a_quantizer_with_statistics_must_be_better_beyond_noise(
    monkeypatch: pytest.MonkeyPatch, differences: list[float], expected: str
) -> None:
    errors = {"mse": np.full(len(differences), 2.0), "descent": 2.0 + np.array(differences)}
    monkeypatch.setattr(choosing, "_errors", lambda variants, *_: errors[variants.quantizer.name])
    assert chosen()[0] == expected


@pytest.mark.parametrize(
    ("texts", "tried"),
    [
        (("int2", "int4", "int8"), "int4"),
        (("int2", "int3", "int8"), "int3"),
        (("int3", "int5"), "int3"),
        (("nf4", "int4", "fp16"), "int4"),
        (("nf4", "int8"), "nf4"),
        (("int8", "fp16"), "int8"),
        (("int4-g32", "int4"), "int4"),
    ],
)
def test_each_layer_is_tried_at_its_candidate_nearest_to_four_bits(
    monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...], tried: str
) -> None:
    seen: list[set[str]] = []

    def noted(variants: Variants, plan: Any, *rest: Any) -> Any:
        seen.append({str(scheme) for scheme in plan.values()})
        return np.zeros(3)

    monkeypatch.setattr(choosing, "_errors", noted)
    chosen("auto", *texts)
    assert seen == [{tried}, {tried}]


def test_an_earlier_choice_counts_for_the_same_model_and_data_or_what_these_grew_from() -> None:
    model, samples = from_module(mlp()), data()
    settings = AnalysisSettings(candidates=("4",), method="weight")
    header = prepare(model, samples, settings).header
    known = ("mse", "quantizer mse: the best that needs no data")
    recorded = choosing.recorded_choice
    assert recorded(header, model=model, data=samples, parts={}) == known
    assert recorded(None, model=model, data=samples, parts={}) is None
    assert recorded(header, model=from_module(mlp(1)), data=samples, parts={}) is None
    assert recorded(header, model=model, data=data(seed=2), parts={}) is None
    assert recorded(header, model=model, data=data(seed=2), parts={"grown_from": samples.sha256}) == known
    assert recorded(replace(header, notes=()), model=model, data=samples, parts={}) is None
    assert recorded(replace(header, notes=("quantizer rtn: as asked",)), model=model, data=samples, parts={}) is None


def test_a_measured_choice_of_quantizer_is_kept_when_the_analysis_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    first = analyzed(output=path, quantizer="auto")
    monkeypatch.setattr(choosing, "_errors", lambda *_: pytest.fail("the quantizers were measured again"))
    again = analyzed(output=path, quantizer="auto", candidates=("2", "4", "8", "16"))
    assert again.header.settings["quantizer"] == first.header.settings["quantizer"]
    assert again.header.notes[2] == first.header.notes[2]
    monkeypatch.undo()
    with pytest.raises(MismatchError, match="another data"):
        analyzed(output=path, quantizer="auto", samples=data(seed=9))


def test_a_quantizer_is_tried_near_four_bits_whatever_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[set[str]] = []
    measured = choosing._errors

    def noted(variants: Variants, plan: Any, *rest: Any) -> Any:
        tried.append({str(scheme) for scheme in plan.values()})
        return measured(variants, plan, *rest)

    monkeypatch.setattr(choosing, "_errors", noted)
    analyzed(quantizer="auto", candidates=("fine", "8"), method="measure")
    assert tried
    assert all(schemes <= {"nl4"} for schemes in tried)
