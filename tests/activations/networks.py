"""A small network with a residual addition, a concatenation and an average, and what it consists of."""

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.models.layers.discover import discover
from mpq.records.layer import Layer


class Residual(nn.Module):
    """conv - BN - ReLU - (conv + itself) - ReLU - [conv | conv] - mean - linear."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second, self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 1)
        self.relu, self.head, self._inplace = nn.ReLU(inplace=inplace), nn.Linear(5, 3), inplace

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        y = self.second(x)
        if self._inplace:
            y += x
        else:
            y = y + x
        y = self.relu(y)
        return self.head(torch.cat([self.left(y), self.right(y)], 1).mean((2, 3)))  # type: ignore[no-any-return]


def residual(*, inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made = Residual(inplace=inplace)
    made.norm.running_mean = torch.linspace(-0.3, 0.3, 4)
    made.norm.running_var = torch.linspace(0.5, 2, 4)
    return made.eval()


def depthwise() -> nn.Module:
    """A depthwise convolution between two others, each with a batch norm."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Conv2d(8, 4, 1)]
    parts = [part for layer in layers for part in (layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


def images(count: int = 4, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def batches(*tensors: Tensor) -> list[Batch]:
    return [Batch((each,), {}) for each in tensors]


def layers_of(module: nn.Module, *tensors: Tensor) -> tuple[Layer, ...]:
    return discover(module, batches(*tensors)).layers
