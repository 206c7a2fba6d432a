"""Lookup tables: only the rows that are looked up are dequantized."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mpq
from mpq.data.batch import Batch
from mpq.export.base import Options
from mpq.export.run import export
from mpq.export.stored.onnx import Graph, read
from mpq.verify.run import verify
from tests.export.artifacts import by_name, make

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


class Encoder(nn.Module):
    """Looks tokens up, perhaps in the table that it multiplies with at the end."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(40, 8), nn.Linear(8, 8), nn.Linear(8, 40, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.head(torch.tanh(self.mix(self.table(ids))))
        return result


def untied() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(tied=False).eval()


def tied() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(tied=True).eval()


def exported(folder: Path, builder: str, scheme: str, target: str = "onnx") -> tuple[Path, Path]:
    """The artifact and its export."""
    name, ids = f"tests.export.weights.onnx.test_tables:{builder}", torch.arange(18).reshape(2, 9)
    state = globals()[builder]().state_dict()
    torch.save(state, folder / "w.pt")
    torch.save(ids, folder / "data.pt")
    _, artifact = make(folder / "w.pt", Batch((ids,)), by_name({"table": scheme}, "int8"), folder, factory=name)
    options = Options(str(folder / "data.pt"), folder / "w.pt", factory=name, trust=True)
    return artifact, export(artifact, target, options=options).path


def ran(path: Path, ids: Tensor) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # or products round their inputs
    session: Any = onnxruntime.InferenceSession(path, options)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0])


@pytest.mark.parametrize(
    ("builder", "scheme", "gathers", "dequantized"), [("untied", "int8", 2, 2), ("tied", "int8", 2, 2), ("untied", "int4", 1, 3)]
)
def test_codes_and_scales_of_the_rows_are_looked_up(tmp_path: Path, builder: str, scheme: str, gathers: int, dequantized: int) -> None:
    artifact, path = exported(tmp_path, builder, scheme)
    graph = Graph(path)
    kinds = [node.op_type for node in graph.model.graph.node]
    assert (kinds.count("Gather"), kinds.count("DequantizeLinear")) == (gathers, dequantized)
    assert sum(name.startswith("table.codes") for name in graph.initializers) == 1
    ids = torch.randint(0, 40, (3, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = mpq.load(artifact, globals()[builder]())(ids)
    torch.testing.assert_close(ran(path, ids), expected, rtol=0, atol=1e-5)


def test_a_table_is_read_back_and_verified(tmp_path: Path) -> None:
    artifact, path = exported(tmp_path, "untied", "int8")
    held = read(path, ())
    assert held.uses["table"] == ("Mul",)
    assert str(held.weights["table"].scheme) == "int8"
    stored = mpq.load(artifact, untied()).get_parameter("table.weight")
    assert torch.equal(held.weights["table"].dequantize(), stored)
    found = verify(path)
    assert found.passed


def test_a_table_that_is_multiplied_as_integers_is_held_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 40, (8, 9))
    program = torch.export.export(tied(), (ids[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "m.pt2")
    loaded = mpq.load_model(tmp_path / "m.pt2")
    table = mpq.analyze(loaded, [ids], candidates="8", quantizer="rtn", method="measure", activations="8d")
    artifact = tmp_path / "m.mpq.safetensors"
    mpq.apply(loaded, mpq.search(table, "32bits", trials=0).plan, artifact, recovery=False, allow_unchanged=True)
    path = export(artifact, "onnx").path
    graph = Graph(path)
    assert [array.shape for name in graph.initializers if (array := graph.array(name)).dtype.name == "int8" and array.size == 320] == [
        (40, 8)
    ]
    assert not [node for node in graph.model.graph.node if node.op_type == "DequantizeLinear"]
    assert sum(node.op_type == "MatMulInteger" for node in graph.model.graph.node) == 2
    with torch.no_grad():
        expected = mpq.load(artifact)(ids)
    assert torch.allclose(ran(path, ids), expected, atol=1e-5)
    assert verify(path).passed
