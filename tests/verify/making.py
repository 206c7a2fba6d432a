"""Small exports to verify."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from tests.export.artifacts import by_name, make

X = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(self.a(x)))
        return found


def exported(folder: Path, target: str, name: str) -> tuple[Path, Path]:
    """The artifact of a small model at int4-g32, and its export to a target."""
    torch.export.save(torch.export.export(Small().eval(), (X,)), folder / "model.pt2")
    _, artifact = make(folder / "model.pt2", Batch((X,)), by_name({}, "int4-g32"), folder)
    return artifact, export(artifact, target, folder / name, options=Options(compare=False)).path
