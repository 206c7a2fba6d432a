import pytest
import torch
from torch import nn

from mpq.errors import UsageError
from mpq.models.running.choose_metric import choose_metric, output_kind, recorded_metric
from mpq.models.running.metrics import KLDivergence
from mpq.models.sources.load import from_module
from tests.models.small import data, mlp


@pytest.mark.parametrize("name", [None, "auto"])
def test_the_metric_that_fits_the_output_is_chosen_with_its_reason(name: str | None) -> None:
    metric, reason = choose_metric(from_module(mlp()), data(), name)
    assert metric.name == "kl_divergence"
    assert reason == f"metric kl_divergence: {output_kind(mlp(), data()).reason}"


def test_a_metric_that_was_asked_for_is_used() -> None:
    metric, reason = choose_metric(mlp(), data(), "cosine")
    assert (metric.name, reason) == ("cosine", "metric cosine: as asked")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^'colour' is not a metric: use one of "):
        choose_metric(mlp(), data(), "colour")


@pytest.mark.parametrize("probabilities", [False, True])
def test_the_metric_of_an_analysis_is_the_one_in_its_header(probabilities: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(mlp(), nn.Softmax(-1)) if probabilities else mlp()
    chosen, _ = choose_metric(model, data())
    assert isinstance(chosen, KLDivergence)
    assert chosen.probabilities is probabilities
    recorded = recorded_metric({"metric": chosen.name, "probabilities": probabilities})
    assert isinstance(recorded, KLDivergence)
    assert recorded.probabilities is probabilities
