import pytest
import torch
from torch import Tensor, nn

from mpq.analyze.choose_method import AFFORDABLE, choose_method, flops
from mpq.analyze.methods.registry import METHODS
from mpq.data.dataset import Data, make_data
from mpq.errors import UsageError
from mpq.models.running.metric_registry import METRICS
from mpq.models.running.metrics import Metric
from tests.models.small import data, mlp

ONCE = 2 * (8 * 16 + 16 * 12 + 12 * 4)  # operations of one sample in `mlp`
AFFORDED = int(AFFORDABLE) // (24 * ONCE)


def metric(name: str = "relative_mse") -> Metric:
    return METRICS.kind(name)()


def choose(name: str = "auto", *, pairs: int = 1, by: str = "relative_mse") -> tuple[str, str]:
    return choose_method(name, mlp(), data(24), metric(by), pairs=pairs)


@pytest.mark.parametrize("name", METHODS)
def test_a_named_method_is_taken_however_long_it_takes(name: str) -> None:
    assert choose(name, pairs=10 * AFFORDED) == (name, f"method {name}: as asked")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^'best' is not a method: use one of auto, measure, fisher, weight$"):
        choose("best")


def test_auto_measures_exactly_as_long_as_it_is_affordable() -> None:
    name, reason = choose(pairs=AFFORDED)
    assert (name, reason) == (
        "measure",
        f"method measure: measuring {AFFORDED} values takes about 5.0e+12 operations, within the 5e+12 of auto",
    )
    name, reason = choose(pairs=AFFORDED + 1)
    assert (name, reason) == (
        "fisher",
        f"method fisher: measuring {AFFORDED + 1} values would take 5.0e+12 operations, "
        "over the 5e+12 of auto; --method measure does it anyway",
    )


@pytest.mark.parametrize("by", METRICS)
def test_auto_needs_a_gradient_of_the_metric_for_the_other_way(by: str) -> None:
    name, reason = choose(pairs=AFFORDED + 1, by=by)
    if metric(by).has_projection:
        assert name == "fisher"
    else:
        assert (name, reason) == (
            "measure",
            f"method measure: {by} has no gradient, although {AFFORDED + 1} values take 5.0e+12 operations",
        )


def test_at_least_one_metric_has_a_gradient_and_one_has_none() -> None:
    assert {metric(name).has_projection for name in METRICS} == {True, False}


@pytest.mark.parametrize(("samples", "batch"), [(24, 8), (24, 24), (7, 3), (1, 1)])
def test_operations_count_every_sample_however_they_are_batched(samples: int, batch: int) -> None:
    assert flops(mlp(), data(samples, batch_size=batch)) == samples * ONCE


class Counted(nn.Module):
    """A layer that notes how many samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(8, 4), list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        found: Tensor = self.linear(x)
        return found


@pytest.mark.parametrize(("fixed", "seen"), [(None, [1]), (4, [4])])
def test_one_sample_is_run_or_one_batch_where_the_model_takes_no_less(fixed: int | None, seen: list[int]) -> None:
    module, samples = Counted().eval(), data(12, batch_size=4)
    given: Data = samples if fixed is None else make_data(samples.batches, source="fixed", fixed_batch=fixed)
    with torch.no_grad():
        assert flops(module, given) == 12 * 2 * 8 * 4
    assert module.seen == seen
