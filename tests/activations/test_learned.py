import pytest
import torch
from torch import nn

from mpq.activations.learned import LearnedRanges, as_long, moved_ranges, slope
from mpq.activations.rounding import changed, rounded
from mpq.records.activations import ActivationGroup, RoundedTensor, header_bytes


def groups(scale: float = 0.0271234, zero_point: int = 30) -> dict[str, ActivationGroup]:
    fixed = ActivationGroup("a8", (RoundedTensor(("linear.1",), scale, zero_point),))
    return {"first": ActivationGroup("a8d", (RoundedTensor(("linear.0",)),)), "second": fixed}


@pytest.mark.parametrize(
    ("value", "like", "found"),
    [
        (0.0281239, 0.0271234, 0.0281239),
        (0.02800004, 0.0271234, 0.0280001),
        (0.0999999, 0.1, 0.1),
        (9.7e-05, 0.0001, 0.0001),
        (3.104e-05, 3.2e-05, 3.1e-05),
        (0.00900004, 0.0271234, 0.0090001),
    ],
)
def test_a_number_of_as_many_characters_is_the_nearest(value: float, like: float, found: float) -> None:
    assert as_long(value, like) == found
    assert len(repr(as_long(value, like))) == len(repr(like))


def test_the_slope_is_that_of_rounding_inside_and_of_the_end_outside() -> None:
    values, step, zero_point = torch.tensor([-1.0, -0.21, 0.26, 0.5, 60.0]), 0.2, 2
    wanted = torch.tensor([-2.0, -1 + 1.05, 1 - 1.3, 2 - 2.5, 253.0])
    torch.testing.assert_close(slope(values, step, zero_point), wanted)
    clipped = values[[0, 4]].double()  # whose rounded values are in proportion to the step
    moved = (rounded(clipped, step * 1.001, zero_point) - rounded(clipped, step, zero_point)) / (step * 0.001)
    torch.testing.assert_close(slope(clipped, step, zero_point).double(), moved, rtol=1e-3, atol=1e-3)


def test_gradients_of_steps_are_those_of_the_straight_through_loss() -> None:
    torch.manual_seed(0)
    module, inputs = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(5, 4)
    learned = LearnedRanges(groups(0.01, 128))
    changes = learned.changes()
    with changed(module, {"linear.1": changes["linear.1"]}):
        output = module(inputs)
    output.square().sum().backward()
    learned.take()
    hidden = module[0](inputs).detach()
    share = torch.zeros((), requires_grad=True)
    step = 0.01 * (1 + share)
    codes = ((hidden / step - (hidden / step).detach()) + (hidden / 0.01).round()).clamp(-128, 127)  # rounding as the identity
    (module[1](codes * step)).square().sum().backward()
    assert learned.change.grad is not None
    assert share.grad is not None
    assert float(learned.change.grad) == pytest.approx(float(share.grad), rel=1e-4)
    learned.take()
    assert float(learned.change.grad) == 0


def test_steps_move_within_the_bytes_of_a_header_and_tokens_stay() -> None:
    learned = LearnedRanges(groups())
    assert learned.groups == groups()
    learned.change.fill_(0.1)
    learned.round()
    (tensor,) = learned.groups["second"].tensors
    assert tensor == RoundedTensor(("linear.1",), 0.0298357, 30)
    assert header_bytes(learned.groups) == header_bytes(groups())
    assert learned.groups["first"] == groups()["first"]
    assert (moved_ranges(groups(), groups()), moved_ranges(groups(), learned.groups)) == (0, 1)
    learned.change.fill_(9.0)
    learned.round()
    assert learned.groups["second"].tensors[0].scale == pytest.approx(1.5 * 0.0271234, rel=1e-4)
