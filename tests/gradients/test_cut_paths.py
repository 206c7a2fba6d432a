from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.gradients.cut_paths import cut_paths
from mpq.models.layers.discover import discover


class Between(nn.Module):
    """Two layers with an operation between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Linear(6, 8), nn.Linear(8, 3), between

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(self.between(self.a(x)))
        return found


class Straight(torch.autograd.Function):
    """Steps with a gradient of one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


BATCH = Batch((torch.randn(4, 6, generator=torch.Generator().manual_seed(0)),))


def found(module: nn.Module) -> tuple[str, ...]:
    return cut_paths(module, discover(module, [BATCH]).layers, BATCH)


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (lambda h: h.detach(), "detach"),
        (lambda h: h.data, "data"),
        (lambda h: torch.from_numpy(h.detach().numpy()), "detach"),
        (lambda h: nn.functional.one_hot(h.argmax(-1), 8).float(), "argmax"),
        (lambda h: (4 * h).round() / 4, "round"),
        (lambda h: h.to(torch.int8).float(), "to"),
        (lambda h: h * h.max().item(), "item"),
        (without_gradients, "no_grad"),
        (Straight.apply, "Straight"),
    ],
)
def test_what_gradients_do_not_see_through_is_named(between: Callable[[Tensor], Tensor], name: str) -> None:
    assert name in found(Between(between).eval())


@pytest.mark.parametrize("between", [torch.relu, nn.functional.gelu, lambda h: h + torch.zeros_like(h), lambda h: h.softmax(-1)[:, :]])
def test_smooth_operations_are_not_named(between: Callable[[Tensor], Tensor]) -> None:
    assert found(Between(between).eval()) == ()


def test_an_exported_program_is_looked_into() -> None:
    program = torch.export.export(Between(torch.round).eval(), (BATCH.args[0],)).module()
    assert found(program) == ("round",)
