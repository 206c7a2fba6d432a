"""Small exports to verify."""

from pathlib import Path

import torch
from torch import Tensor, nn

import mpq
from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.records.fingerprint import read_fingerprint
from mpq.verify.programs.base import Program
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


def check_loaded(folder: Path, program: Program, target: str, name: str, *, tells_used: bool) -> None:
    """That a program loads an export with the artifact's weights and outputs, and tells what it computes with or nothing."""
    artifact, path = exported(folder, target, name)
    facts = read_fingerprint(path)
    assert program.check_installed()
    loaded = program.load(path, facts, trust=False)
    module = mpq.load(artifact)
    with torch.no_grad():
        (found,) = loaded.run([X])
        assert torch.allclose(found, module(X), atol=1e-4)
    assert loaded.held is not None
    for layer in "ab":
        place, weight = facts.layers[layer].place, module.state_dict()[f"{layer}.weight"]
        assert torch.equal(loaded.held.weights[place].dequantize(), weight)
        used = loaded.used(place)
        assert (used is not None) == tells_used
        assert used is None or torch.allclose(used, weight, atol=1e-6)
    assert loaded.used("none") is None
