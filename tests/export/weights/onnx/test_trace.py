"""A model as an ONNX graph in floating point, its weights under their names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from mpq.apply.run import apply
from mpq.data.batch import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import Source, open_source
from mpq.export.weights.onnx.trace import OPSET, PREFIX, trace
from mpq.models.sources.load import load_model
from tests.apply.making import plan_of
from tests.export.artifacts import by_name, make
from tests.models.small import inputs, mlp

for name in ("onnx", "onnxscript"):
    pytest.importorskip(name)
BUILDER = "tests.export.weights.onnx.test_trace:made"


def made() -> nn.Module:
    return mlp()


def exported(folder: Path, dynamic: Any) -> Source:
    torch.export.save(torch.export.export(mlp(), (inputs(8, 8),), dynamic_shapes=dynamic), folder / "m.pt2")
    return applied(folder, folder / "m.pt2")


def applied(folder: Path, path: Path, factory: str | None = None) -> Source:
    model = load_model(path, factory=factory)
    apply(model, plan_of(model, "mlp"), folder / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    return open_source(folder / "m.mpq.safetensors")


def state_dict(folder: Path) -> Source:
    torch.save(mlp().state_dict(), folder / "w.pt")
    torch.save(inputs(4, 8), folder / "data.pt")
    return applied(folder, folder / "w.pt", factory=BUILDER)


def shape_of(model: Any) -> list[Any]:
    return [dim if isinstance(dim, int) else "dynamic" for dim in model.graph.inputs[0].shape]


def test_a_program_keeps_its_own_dimensions_and_names_and_layers_are_zero(tmp_path: Path) -> None:
    model = trace(exported(tmp_path, ({0: Dim("batch")},)), Options()).model
    assert shape_of(model) == ["dynamic", 8]
    assert model.graph.opset_imports[""] == OPSET
    found = model.graph.initializers
    assert {"0.weight", "0.bias", "3.weight", "5.weight"} <= set(found)
    assert torch.equal(torch.from_numpy(found["0.bias"].const_value.numpy()), mlp().get_parameter("0.bias").detach())
    assert not found["0.weight"].const_value.numpy().any()


def test_other_models_are_traced_with_samples_of_any_number(tmp_path: Path) -> None:
    model = trace(state_dict(tmp_path), Options(data=str(tmp_path / "data.pt"), model=tmp_path / "w.pt", factory=BUILDER)).model
    assert shape_of(model) == ["dynamic", 8]
    names = {name.removeprefix(PREFIX) for name in model.graph.initializers if name.startswith(PREFIX)}
    assert {"0.weight", "0.bias"} <= names


class Masked(nn.Module):
    """Is called by names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.linear(x) * mask
        return result


def masked() -> nn.Module:
    torch.manual_seed(0)
    return Masked().eval()


def test_inputs_by_name_keep_their_names_and_any_number_of_samples(tmp_path: Path) -> None:
    builder = "tests.export.weights.onnx.test_trace:masked"
    torch.save(masked().state_dict(), tmp_path / "w.pt")
    torch.save({"x": inputs(4, 8), "mask": torch.ones(4, 1)}, tmp_path / "data.pt")
    batch = Batch((), {"x": inputs(2, 8), "mask": torch.ones(2, 1)})
    _, artifact = make(tmp_path / "w.pt", batch, by_name({}, "int8"), tmp_path, factory=builder)
    options = Options(data=str(tmp_path / "data.pt"), model=tmp_path / "w.pt", factory=builder)
    traced = trace(open_source(artifact), options).model
    found = [(each.name, [dim if isinstance(dim, int) else "dynamic" for dim in each.shape]) for each in traced.graph.inputs]
    assert found == [("x", ["dynamic", 8]), ("mask", ["dynamic", 1])]


class Counting(nn.Module):
    """Looks up tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.head((self.table(ids) * mask[..., None]).sum(1))
        return result


def counting() -> nn.Module:
    torch.manual_seed(0)
    return Counting().eval()


def test_tokens_may_be_of_any_number(tmp_path: Path) -> None:
    builder, ids = "tests.export.weights.onnx.test_trace:counting", torch.arange(18).reshape(2, 9) % 9
    torch.save(counting().state_dict(), tmp_path / "w.pt")
    torch.save({"ids": ids, "mask": torch.ones_like(ids)}, tmp_path / "data.pt")
    batch = Batch((), {"ids": ids, "mask": torch.ones_like(ids)})
    _, artifact = make(tmp_path / "w.pt", batch, by_name({}, "int8"), tmp_path, factory=builder)
    options = Options(data=str(tmp_path / "data.pt"), model=tmp_path / "w.pt", factory=builder)
    graph = trace(open_source(artifact), options).model.graph
    assert [isinstance(dim, int) for each in graph.inputs for dim in each.shape] == [False] * 4


def test_samples_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no example inputs to trace it with: add --data FILE"):
        trace(state_dict(tmp_path), Options(model=tmp_path / "w.pt", factory=BUILDER))


class Unusual(nn.Module):
    """Calls an operator that has no counterpart in ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        result: Tensor = found + torch.special.modified_bessel_i0(found)
        return result


def test_a_model_that_cannot_be_converted_is_refused_with_the_converters_reason(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Unusual().eval(), (inputs(2, 8),)), tmp_path / "m.pt2")
    _, artifact = make(tmp_path / "m.pt2", Batch((inputs(2, 8),)), by_name({}, "int8"), tmp_path)
    with pytest.raises(ExportError) as caught:
        trace(open_source(artifact), Options())
    message = str(caught.value)
    assert message.startswith("torch.onnx cannot convert this model (")
    assert message.endswith("): see `mpq --verbose export` for the full reason")
    assert "\n" not in message
