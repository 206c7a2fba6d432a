import torch
from torch import nn

from mpq.activations.exceeded import counted
from mpq.activations.rounding import simulate
from mpq.records.activations import ActivationGroup, RoundedTensor

GROUPS = {"head": ActivationGroup("a8", (RoundedTensor(("linear.0",), 0.5, 0),))}  # 0 to 127.5


def test_values_outside_of_a_range_are_counted_and_told() -> None:
    module = simulate(nn.Linear(4, 2), GROUPS)
    inputs = torch.tensor([[-0.2, 127.7, 3.0, 5.0], [-1.0, 128.0, 3.0, 5.0]])
    plain = module(inputs)
    with counted(module, GROUPS) as counts:
        assert torch.equal(module(inputs), plain)
    assert (counts.values, counts.outside) == ({"linear.0": 8}, {"linear.0": 2})
    assert counts.lines(GROUPS) == [
        "this data exceeds the ranges of activations; share of values clipped: head (linear.0) 25.00%; calibrate on data like it"
    ]
    module(inputs)
    assert counts.values == {"linear.0": 8}  # no longer


def test_nothing_is_told_of_data_within_the_ranges() -> None:
    module = simulate(nn.Linear(4, 2), GROUPS)
    with counted(module, GROUPS) as counts:
        module(torch.rand(8, 4))
    assert counts.lines(GROUPS) == []
