from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.analyze.prepare import prepare
from mpq.analyze.task import Prepared
from mpq.config import AnalysisSettings
from mpq.errors import DataError, PatternError, SchemeError, UsageError
from mpq.models.sources.load import from_module
from tests.models.small import data, mlp


def prepared(module: nn.Module | None = None, **settings: Any) -> Prepared:
    return prepare(from_module(module or mlp()), data(), AnalysisSettings(**settings), path="model.pt2", reading={"num_samples": 24})


def test_the_header_says_what_is_measured_on_what_and_how() -> None:
    header = prepared(candidates=("4", "8"), quantizer="rtn", held_out=0.5, seed=3).header
    assert header.model == {"path": "model.pt2", "sha256": from_module(mlp()).sha256, "kind": "memory"}
    assert header.data["sha256"] == data().sha256
    assert (header.data["num_samples"], header.data["held_out"], header.data["seed"]) == (24, 0.5, 3)
    assert header.data["samples"] == {"calibration": 12, "held_out": 12}
    assert (header.settings["metric"], header.settings["method"], header.settings["quantizer"]) == ("kl_divergence", "measure", "rtn")
    assert [layer.name for layer in header.layers] == ["0", "3", "5"]
    assert {name: [str(s) for s in schemes] for name, schemes in header.candidates.items()} == {key: ["int4", "int8"] for key in "035"}
    assert header.rest.weights == 16 + 32 + 12 + 4
    assert header.rest.original_bytes == 4 * header.rest.weights
    assert set(header.versions) == {"mpq", "torch", "python"}


def test_targets_are_kept_and_ignored_layers_left_out() -> None:
    assert [layer.name for layer in prepared(targets=("0", "5")).header.layers] == ["0", "5"]
    assert [layer.name for layer in prepared(ignore=("3",)).header.layers] == ["0", "5"]
    assert [layer.name for layer in prepared(targets=("re:[35]",), ignore=("5",)).header.layers] == ["3"]


def test_ignored_layers_are_counted_with_the_rest() -> None:
    assert prepared(ignore=("3",)).header.rest.weights == prepared().header.rest.weights + 16 * 12


def test_no_layer_left_is_refused() -> None:
    with pytest.raises(PatternError) as error:
        prepared(targets=("0",), ignore=("*",))
    assert str(error.value) == "no layers left to search: widen --targets or narrow --ignore"


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"targets": ("conv",)}, PatternError),
        ({"candidates": ("9",)}, SchemeError),
        ({"metric": "bleu"}, UsageError),
        ({"method": "guess"}, UsageError),
        ({"held_out": 1.0}, UsageError),
    ],
)
def test_unknown_choices_are_refused(settings: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        prepared(**settings)


def test_a_single_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match="cannot be split into a calibration and a held-out part"):
        prepare(from_module(mlp()), data(1), AnalysisSettings())


class Ending(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.body, self.end = nn.Linear(8, 6), end

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.end(self.body(x))
        return found


@pytest.mark.parametrize(
    ("end", "metric", "probabilities"),
    [
        (nn.Identity(), "kl_divergence", False),
        (nn.Softmax(-1), "kl_divergence", True),
        (nn.ReLU(), "relative_mse", False),
        (nn.Unflatten(1, (2, 3, 1)), "relative_mse", False),
    ],
)
def test_the_metric_follows_the_output(end: nn.Module, metric: str, probabilities: bool) -> None:
    torch.manual_seed(0)
    header = prepared(Ending(end).eval()).header
    assert (header.settings["metric"], header.settings["probabilities"]) == (metric, probabilities)
    assert header.notes[0].startswith(f"metric {metric}: ")


def test_a_metric_that_was_asked_for_is_taken() -> None:
    header = prepared(metric="cosine").header
    assert (header.settings["metric"], header.notes[0]) == ("cosine", "metric cosine: as asked")


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.used(x)
        return found


def test_layers_that_the_data_never_reaches_are_noted_and_left_as_they_are() -> None:
    header = prepared(Idle().eval()).header
    assert [layer.name for layer in header.layers] == ["used"]
    assert header.notes[-1] == "never reached by the calibration data, so left unquantized: idle"
