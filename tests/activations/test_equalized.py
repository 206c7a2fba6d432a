import pytest
import torch
from torch import nn

from mpq.activations.equalized import equalized, folded
from mpq.errors import MismatchError
from mpq.records.equalization import Chain
from tests.activations.networks import depthwise, images
from tests.models.small import bits

FREE = Chain("conv.1", ("1.weight", "1.bias"), ("3.weight",), (0, 1, -1, 2, -2, 3, -3, 8))
MIXED = Chain("conv.2", ("4.weight", "4.bias"), ("6.weight",), (5, 4, 3, 2, 1, 0, -1, -2))


def test_the_model_computes_the_same_to_the_bit_and_is_restored() -> None:
    module = depthwise()
    before, expected = bits(module), module(images())
    with equalized(module, (FREE, MIXED)):
        assert bits(module) != before
        assert torch.equal(module(images()), expected)
    assert bits(module) == before


def test_rows_are_multiplied_and_input_channels_divided() -> None:
    module = depthwise()
    found = folded(module, (FREE, MIXED))
    state = module.state_dict()
    powers = torch.tensor(MIXED.exponents).exp2()
    assert torch.equal(found["6.weight"], state["6.weight"] / powers[None, :, None, None])
    assert torch.equal(found["4.bias"], state["4.bias"] * powers)
    assert torch.equal(found["3.weight"], state["3.weight"] / torch.tensor(FREE.exponents).exp2()[:, None, None, None])


def test_channels_of_grouped_convolutions_belong_to_the_outputs_of_their_group() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2)).eval()
    expected = module(images())
    with equalized(module, [Chain("conv.1", ("0.weight", "0.bias"), ("2.weight",), (0, 1, 2, -1, -2, 4))]):
        assert torch.equal(module(images()), expected)


@pytest.mark.parametrize(
    "chain", [Chain("conv.1", ("1.weight",), ("3.weight",), (1, 2)), Chain("x", ("1.weight",), ("6.weight",), (1,) * 9)]
)
def test_chains_of_another_model_are_refused_by_name(chain: Chain) -> None:
    with pytest.raises(MismatchError, match=r"equalized channels: the equalization belongs to another model"):
        folded(depthwise(), [chain])
