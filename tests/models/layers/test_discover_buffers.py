"""Buffers that act as weights are layers; state, masks and tables that are added are not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.layers.discovering import IMAGES, X, find


class Buffered(nn.Module):
    """A linear layer, and one operation with a buffer."""

    def __init__(self, kind: str, buffer: Tensor) -> None:
        super().__init__()
        self.kind, self.body = kind, nn.Linear(8, 8)
        self.register_buffer("table", buffer)

    def forward(self, x: Tensor) -> Tensor:
        table, y = self.get_buffer("table"), self.body(x)
        if self.kind == "added":
            y = y + table
        elif self.kind == "conv":
            y = functional.conv2d(IMAGES, table) + y.mean()
        elif self.kind == "linear":
            y = functional.linear(y, table)
        else:
            y = y @ table
        if self.kind == "changed":
            table.mul_(0.9)
        result: Tensor = y
        return result


@pytest.mark.parametrize(
    ("kind", "shape", "axes"), [("linear", (6, 8), (0,)), ("matmul", (8, 6), (1,)), ("conv", (6, 4, 3, 3), (0,)), ("added", (1, 8), None)]
)
def test_a_buffer_is_a_layer_if_a_product_consumes_it(kind: str, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    found = find(Buffered(kind, torch.randn(shape)).eval(), X)
    assert {layer.name: layer.axes for layer in found.layers}.get("table") == axes
    assert ("table" in found.rest) == (axes is None)


def test_a_buffer_that_the_model_changes_is_no_layer() -> None:
    found = find(Buffered("changed", torch.randn(8, 8)).eval(), X)
    assert [layer.name for layer in found.layers] == ["body"]
