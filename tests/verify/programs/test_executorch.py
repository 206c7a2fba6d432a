"""An ExecuTorch program whose weights no one reads is judged by its outputs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.records.fingerprint import fingerprint_path
from mpq.verify.worker import verified
from tests.export.artifacts import by_name, make


class Small(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 5)
        with torch.no_grad():
            self.a.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(torch.relu(self.a(x)))
        return found


def exported(folder: Path, scale: float) -> Path:
    folder.mkdir()
    x = torch.randn(4, 64)
    torch.export.save(torch.export.export(Small(scale).eval(), (x,)), folder / "m.pt2")
    _, artifact = make(folder / "m.pt2", Batch((x,)), by_name({}, "int8"), folder)
    return export(artifact, "executorch", folder / "m.pte", options=Options(compare=False)).path


def test_outputs_of_other_weights_are_found(tmp_path: Path) -> None:
    pytest.importorskip("executorch.runtime")
    right, wrong = exported(tmp_path / "right", 1.0), exported(tmp_path / "wrong", -1.0)
    assert verified(right, "executorch", None, trust=False).passed
    found = verified(wrong, "executorch", fingerprint_path(right), trust=False)
    assert [(each.kind, each.name) for each in found.findings] == [("outputs", "output")]
    assert found.notes == ("the weights in an ExecuTorch program cannot be read, so only its outputs are compared",)
