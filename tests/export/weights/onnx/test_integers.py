"""Integer activations in graphs: every tensor rounded as in the artifact's simulation."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mpq
from mpq.activations.rounding import simulate
from mpq.errors import UsageError
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.run import export
from mpq.export.weights.onnx.integers import numbered, readers_in
from mpq.models.sources.load import load_model
from mpq.records.activations import ActivationGroup, RoundedTensor, around_zero
from tests.activations.networks import depthwise, images, residual
from tests.export.weights.onnx.activations import exported, ran

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


def graph_of(path: Path) -> Any:
    import onnx

    return onnx.load(path).graph


def test_readers_are_found_in_an_exported_program_by_their_order() -> None:
    program = torch.export.export(residual(), (images(),))
    found, counts = readers_in(program)
    assert counts == {"conv": 4, "add": 1, "cat": 1, "average": 1, "linear": 1}
    assert found == {
        "conv.0": ("conv2d", 0),
        "conv.1": ("conv2d_1", 0),
        "add.0.0": ("add", 0),
        "add.0.1": ("add", 1),
        "conv.2": ("conv2d_2", 0),
        "conv.3": ("conv2d_3", 0),
        "cat.0.0": ("cat", 0),
        "cat.0.1": ("cat", 1),
        "average.0": ("mean", 0),
        "linear.0": ("linear", 0),
    }


def test_a_residual_network_is_one_island_and_gives_the_outputs_of_the_artifact(tmp_path: Path) -> None:
    artifact, plan, done = exported(tmp_path, residual(), images(16), activations="8")
    assert len(plan.activations) == 6
    counts = Counter(node.op_type for node in graph_of(done.path).node)
    assert (counts["BatchNormalization"], counts["GlobalAveragePool"], counts["ReduceMean"]) == (0, 1, 0)
    assert counts["QuantizeLinear"] == 8  # one for each tensor
    assert counts["DequantizeLinear"] == 8 + 5 + 5  # and for each weight and bias
    inputs = images(5, seed=9)
    with torch.no_grad():
        expected = mpq.load(artifact)(inputs)
        plain = mpq.load(artifact, activations=False)(inputs)
    found = ran(done.path, inputs)
    step = float(expected.max() - expected.min()) / 255
    assert float((found - expected).abs().max()) < step
    assert float((plain - expected).abs().max()) > step / 4  # rounding does something
    assert any("steps of 8 bits" in note for note in done.notes)


def test_openvino_takes_a_graph_whose_depthwise_layer_stays_in_floating_point_beside_integers(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    artifact, plan, done = exported(tmp_path, depthwise(), images(16), activations="8", without="3")
    assert len(plan.activations) == 3
    weight = next(node for node in graph_of(done.path).node if node.op_type == "DequantizeLinear" and node.input[0] == "3.codes")
    assert any(node.op_type == "Conv" and node.input[1] == weight.output[0] for node in graph_of(done.path).node)
    inputs = images(5, seed=9)
    found = torch.from_numpy(openvino.Core().compile_model(done.path, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})(inputs.numpy())[0])
    with torch.no_grad():
        expected = mpq.load(artifact)(inputs)
    assert float((found - expected).abs().max()) < float(expected.max() - expected.min()) / 255


def test_ranges_around_zero_are_signed_without_integer_biases(tmp_path: Path) -> None:
    artifact, plan, _ = exported(tmp_path, residual(), images(16), activations="8")
    done = export(artifact, "onnx", tmp_path / "s.onnx", options=Options(symmetric=True))
    graph = graph_of(done.path)
    constants = {each.name: each for each in graph.initializer}
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) == 8
    assert {constants[node.input[2]].data_type for node in quantized} == {3}  # int8
    assert {bytes(constants[node.input[2]].raw_data) for node in quantized} == {b"\0"}
    assert not [each for each in graph.initializer if each.data_type == 6]  # int32
    inputs = images(5, seed=9)
    with torch.no_grad():
        expected = simulate(mpq.load(artifact, activations=False), around_zero(plan.activations))(inputs)
    assert float((ran(done.path, inputs) - expected).abs().max()) < float(expected.max() - expected.min()) / 255


@pytest.mark.parametrize(("activations", "target", "message"), [("8d", "onnx", "have a8d"), ("8", "pt2", "of --to onnx: leave it out")])
def test_ranges_around_zero_are_for_fixed_ranges_in_onnx(tmp_path: Path, activations: str, target: str, message: str) -> None:
    artifact, _, _ = exported(tmp_path, Tokens().eval(), torch.randn(8, 5, 8), activations=activations)
    with pytest.raises(UsageError, match=message):
        export(artifact, target, tmp_path / "s", options=Options(symmetric=True))


def test_pooling_and_reshapes_have_one_range_on_both_sides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    artifact, _, done = exported(tmp_path, module, images(16), activations="8")
    graph = graph_of(done.path)
    makers = {name: node for node in graph.node for name in node.output}
    pool = next(node for node in graph.node if node.op_type == "MaxPool")
    assert makers[pool.input[0]].op_type == "DequantizeLinear"
    with torch.no_grad():
        expected = mpq.load(artifact)(images(5))
    assert float((ran(done.path, images(5)) - expected).abs().max()) < 0.004 * float(expected.abs().max())


class Tokens(nn.Module):
    """Two products that read one tensor, and a third."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b, self.c = nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(8, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        return self.c(torch.tanh(self.a(x)) * self.b(x)).mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("candidates", ["8", "int4", "int8-g4"])
def test_dynamic_products_have_a_scale_for_each_token(tmp_path: Path, candidates: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(16, 5, 8) * torch.logspace(-2, 2, 5)[:, None]
    artifact, plan, done = exported(tmp_path, Tokens().eval(), inputs, activations="8d", candidates=candidates)
    if candidates == "int8-g4":  # no runtime multiplies groups as integers
        assert plan.activations == {}
        return
    counts = Counter(node.op_type for node in graph_of(done.path).node)
    assert (counts["MatMulInteger"], counts["QuantizeLinear"], counts["MatMul"]) == (3, 2, 0)
    with torch.no_grad():
        expected = mpq.load(artifact)(inputs[:5])
        plain = mpq.load(artifact, activations=False)(inputs[:5])
    found = ran(done.path, inputs[:5])
    assert float((found - expected).abs().max()) < 1e-5
    assert float((plain - expected).abs().max()) > 1e-4


class Unused(nn.Module):
    """Computes a product, whose result nobody reads, before the one of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.pooler(x)
        return self.head(x)  # type: ignore[no-any-return]


def unused() -> nn.Module:
    torch.manual_seed(0)
    return Unused().eval()


def test_operators_that_no_output_needs_are_not_counted(tmp_path: Path) -> None:
    builder, inputs = "tests.export.weights.onnx.test_integers:unused", torch.randn(16, 8)
    torch.save(unused().state_dict(), tmp_path / "w.pt")
    torch.save(inputs[:4], tmp_path / "data.pt")
    loaded = load_model(tmp_path / "w.pt", factory=builder)
    chosen: dict[str, Any] = {"candidates": "8", "quantizer": "rtn", "method": "measure", "activations": "8"}
    plan = mpq.search(mpq.analyze(loaded, list(torch.split(inputs, 4)), **chosen), "32bits", trials=0).plan
    assert [group.readers for group in plan.activations.values()] == [["linear.1"]]
    mpq.apply(loaded, plan, tmp_path / "m.mpq.safetensors", recovery=False, allow_unchanged=True)
    options = Options(str(tmp_path / "data.pt"), tmp_path / "w.pt", factory=builder, fingerprint=False)
    done = export(tmp_path / "m.mpq.safetensors", "onnx", options=options)
    with torch.no_grad():
        expected = mpq.load(tmp_path / "m.mpq.safetensors", unused())(inputs)
    assert float((ran(done.path, inputs) - expected).abs().max()) < float(expected.max() - expected.min()) / 255


class Shortcut(nn.Module):
    """A shortcut that leaves out every second pixel and adds channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(torch.relu(self.down(x) + short)).mean((2, 3))  # type: ignore[no-any-return]


def test_a_shortcut_that_only_moves_values_reads_the_same_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact, plan, done = exported(tmp_path, Shortcut().eval(), images(16), activations="8")
    assert [tensor.readers for tensor in plan.activations["down"].tensors] == [("conv.1", "add.0.1"), ("add.0.0",)]
    graph = graph_of(done.path)
    users = [node.op_type for node in graph.node for name in node.input if name in [n.output[0] for n in graph.node if n.op_type == "Relu"]]
    assert users == ["QuantizeLinear"] * 2  # nothing reads the floating-point result of a ReLU
    with torch.no_grad():
        expected = mpq.load(artifact)(images(5))
    assert float((ran(done.path, images(5)) - expected).abs().max()) < 0.004 * float(expected.abs().max())


def test_a_graph_with_other_operators_is_refused() -> None:
    groups = {"x": ActivationGroup("a8", (RoundedTensor(("add.0.0", "conv.0"), 0.5, 3),))}
    called = ["add.1", "conv.0", "cat.0", "add.2"]
    assert numbered(groups, called, Counter(add=2, conv=1)) == {"add.1": "add.0", "add.2": "add.1", "conv.0": "conv.0"}
    with pytest.raises(ExportError, match="the model calls 2 operators 'add' and the converted graph has 1"):
        numbered(groups, called, Counter(add=1, conv=1))
