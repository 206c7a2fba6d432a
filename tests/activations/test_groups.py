import torch
from torch import nn

from mpq.activations.groups import candidates
from mpq.activations.trace import trace
from tests.activations.networks import batches, images, layers_of, residual


def test_an_island_holds_residual_additions_joins_and_averages() -> None:
    module = residual()
    found = candidates(trace(module, batches(images())[0], layers_of(module, images())))
    assert [(each.name, each.tensors, each.layers) for each in found] == [
        ("first", (("conv.0",),), ("first",)),
        ("second", (("conv.1", "add.0.1"), ("add.0.0",)), ("second",)),
        ("left", (("conv.2", "conv.3"),), ("left", "right")),
        ("cat.0.0", (("cat.0.0",), ("cat.0.1",)), ()),
        ("average.0", (("average.0",),), ()),
        ("head", (("linear.0",),), ("head",)),
    ]
    assert [each.only_products for each in found] == [False] * 5 + [True]


class Block(nn.Module):
    """A residual stream that a norm reads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return x + self.down(torch.relu(self.up(self.norm(x))))  # type: ignore[no-any-return]


def test_the_residual_stream_of_a_transformer_stays_in_floating_point_and_a_layer_called_twice_has_two_groups() -> None:
    module, x = Block().eval(), torch.ones(2, 3, 4)
    found = candidates(trace(module, batches(x)[0], layers_of(module, x)))
    assert [(each.name, each.tensors) for each in found] == [
        ("up", (("linear.0",),)),
        ("down", (("linear.1",),)),
        ("linear.2", (("linear.2",),)),
        ("linear.3", (("linear.3",),)),
    ]
    assert all(each.only_products for each in found)
