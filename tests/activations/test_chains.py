from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mpq.activations.chains import Link, links
from mpq.activations.trace import trace
from mpq.data.batch import Batch
from mpq.models.layers.state_tensors import state_of
from tests.activations.networks import depthwise, images, layers_of, residual


def found(module: nn.Module, inputs: Tensor) -> list[Link]:
    layers = layers_of(module, inputs)
    lengths = {name: len(tensor) if tensor.dim() else 0 for name, tensor in state_of(module).items()}
    return links(trace(module, Batch((inputs,), {}), layers), layers, lengths)


def test_channels_between_convolutions_are_scaled_in_the_norm_before_and_the_weight_behind() -> None:
    assert found(depthwise(), images(2)) == [
        Link(("conv.1",), ("conv.1",), ("1.weight", "1.bias"), ("3.weight",), 8, free=True),
        Link(("conv.2",), ("conv.2",), ("4.weight", "4.bias"), ("6.weight",), 8, free=False),
    ]  # the last one is flattened: its channels are not those of the linear layer


def test_a_tensor_that_an_addition_reads_too_is_left_alone() -> None:
    assert found(residual(), images(2)) == []


class Block(nn.Module):
    """A transformer's norms and gated product."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.rms = nn.LayerNorm(8), nn.RMSNorm(8)
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 6), nn.Linear(8, 6, bias=False), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.q(y) * self.k(y).sigmoid()
        y = self.rms(x)
        result: Tensor = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return result


def test_norms_and_gated_products_of_transformers_in_two_forms() -> None:
    torch.manual_seed(0)
    module, inputs = Block().eval(), torch.randn(2, 5, 8)
    expected = [
        Link(("linear.0", "linear.1"), ("linear.0", "linear.1"), ("norm.weight", "norm.bias"), ("q.weight", "k.weight"), 8, free=False),
        Link(("linear.2", "linear.3"), ("linear.2", "linear.3"), ("rms.weight",), ("gate.weight", "up.weight"), 8, free=False),
        Link(("linear.4",), ("linear.4",), ("up.weight",), ("down.weight",), 6, free=False),
    ]
    assert found(module, inputs) == expected
    assert found(torch.export.export(module, (inputs,)).module(), inputs) == expected


class Between(nn.Module):
    """Two linear layers with something in between."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.first, self.second, self.what = nn.Linear(4, 4), nn.Linear(4, 4), what

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        between: dict[str, Callable[[], Tensor]] = {
            "leaky": lambda: nn.functional.leaky_relu(x),
            "doubled": lambda: x * 2,
            "mean": lambda: x[:, None].mean(1),
            "gelu": lambda: nn.functional.gelu(x),
            "relu6": lambda: nn.functional.relu6(x),
            "square": lambda: x * x.relu(),
            "shifted": lambda: x + 1,
            "returned": lambda: x,
            "twice": lambda: torch.as_tensor(self.first(x)),
        }
        y: Tensor = self.second(between[self.what]())
        return torch.stack([x, y]) if self.what == "returned" else y


@pytest.mark.parametrize(
    ("what", "count"),
    [("leaky", 1), ("doubled", 1), ("mean", 1), ("gelu", 0), ("relu6", 0), ("square", 0), ("shifted", 0), ("returned", 0), ("twice", 0)],
)
def test_only_what_grows_with_its_input_may_stand_in_between(what: str, count: int) -> None:
    assert len(found(Between(what).eval(), torch.randn(3, 4))) == count
