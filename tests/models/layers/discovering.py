"""What the tests of discovery share: inputs, a module of any function, and short forms of what was found."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.models.layers.discover import Discovery, discover
from mpq.records.layer import Layer

X = torch.randn(2, 5, 8)
IMAGES = torch.randn(2, 4, 8, 8)
IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


class Lambda(nn.Module):
    """A module that holds `parts` (parameters and modules) and runs `function(self, *inputs)`."""

    def __init__(self, function: Callable[..., Any], **parts: Tensor | nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of PyTorch about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find(module: nn.Module, *inputs: Any, **kwargs: Any) -> Discovery:
    return discover(module.eval(), [Batch(inputs, kwargs)])


def brief(layers: tuple[Layer, ...]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(layer.name, layer.axes, layer.operator) for layer in layers]


def by_name(found: Discovery) -> dict[str, Layer]:
    return {layer.name: layer for layer in found.layers}


def weight(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.1
