import pytest
import torch
from torch import Tensor

from mpq.calibration.statistics_entry import from_parts, to_parts
from mpq.tensors.quantizers.base import Statistics
from tests.small import linear

LAYER = linear("a", 4, 3)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)])
def test_statistics_come_back_to_the_bit(shape: tuple[int, ...]) -> None:
    known = Statistics(torch.rand(shape), 7)
    found = from_parts(to_parts(known, ""), LAYER)
    assert isinstance(found, Statistics)
    assert torch.equal(found.hessian, known.hessian)
    assert found.count == 7


def test_so_does_the_reason_why_there_are_none() -> None:
    assert from_parts(to_parts(None, "a lookup table"), LAYER) == "a lookup table"


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"hessian": torch.zeros(3, 3)},
        {"hessian": torch.zeros(2, 2), "count": torch.tensor([1])},
        {"hessian": torch.zeros(3, 3, 3), "count": torch.tensor([1])},
        {"hessian": torch.full((3, 3), float("nan")), "count": torch.tensor([1])},
        {"hessian": torch.zeros(3, 3, dtype=torch.float64), "count": torch.tensor([1])},
        {"hessian": torch.zeros(3, 3), "count": torch.tensor([1, 2])},
        {"reason": torch.zeros(3)},
    ],
)
def test_what_cannot_be_statistics_is_not_believed(parts: dict[str, Tensor]) -> None:
    assert from_parts(parts, LAYER) is None
