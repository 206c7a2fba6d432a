"""Weights of a graph are replaced by codes, in the patterns that ExecuTorch's kernels are found by."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.data.batch import Batch
from mpq.export.abilities import ExportError
from mpq.export.base import Options
from mpq.export.source import open_source
from mpq.export.weights.executorch.graph import Graph
from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import quantizer_named
from tests.export.artifacts import by_name, make
from tests.models.small import inputs

decomposed = pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="executorch is not installed")


class All(nn.Module):
    """A use of each kind, a grouped convolution, and a weight that is also read otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.depth = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.linear, self.read = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found = self.linear(self.depth(self.conv(x)).mean((2, 3)))
        result: Tensor = self.read(found) + self.read.weight.sum()
        return result


def graph_of(module: nn.Module, folder: Path, *given: Tensor, scheme: str = "int8") -> Graph:
    torch.export.save(torch.export.export(module.eval(), given), folder / "model.pt2")
    _, artifact = make(folder / "model.pt2", Batch(given), by_name({}, scheme), folder)
    return Graph(open_source(artifact), Options())


def targets(graph: Graph) -> list[str]:
    return [str(node.target) for node in graph.program().graph.nodes if node.op == "call_function"]


def test_a_layer_is_used_as_what_its_kernels_take_or_as_nothing(tmp_path: Path) -> None:
    graph = graph_of(All(), tmp_path, inputs(2, 3, 8, 8))
    found = {name: graph.uses(name) for name in ("conv", "depth", "linear", "read")}
    assert found == {"conv": {"convolution"}, "depth": set(), "linear": {"linear"}, "read": set()}
    assert graph.notes == ["it takes inputs of shape [2, 3, 8, 8]"]
    assert not graph.tokens


def test_half_precision_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        graph_of(nn.Linear(8, 8).bfloat16(), tmp_path, inputs(2, 8).bfloat16())
    assert str(caught.value) == "this program computes in bfloat16, but XNNPACK computes in float32 here: export the model in float32"


def put(graph: Graph, name: str, weight: Tensor, scheme: str) -> Any:
    """Put a weight in; its quantized form."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401

    quantized = quantizer_named("rtn").quantize(weight.detach().flatten(1), parse_scheme(scheme))
    graph.put(name, quantized)
    return quantized


@decomposed
@pytest.mark.parametrize("scheme", ["int8", "int4", "int4-g32"])
def test_a_linear_layer_gets_codes_and_rounded_inputs(tmp_path: Path, scheme: str) -> None:
    module, x = nn.Sequential(nn.Linear(32, 6)), inputs(1, 32)
    graph = graph_of(module, tmp_path, x, scheme=scheme)
    quantized = put(graph, "0", module.get_parameter("0.weight"), scheme)
    program = graph.program()
    found = targets(graph)
    kind = "dequantize_per_channel_group" if "-g" in scheme else "dequantize_per_channel"
    assert [target for target in found if target.startswith(f"quantized_decomposed.{kind}.")]
    assert "quantized_decomposed.choose_qparams_per_token_asymmetric.default" in found
    expected = nn.functional.linear(x, quantized.dequantize(), module.get_parameter("0.bias"))
    assert torch.allclose(program.module()(x), expected, atol=0.05)
    assert not [name for name in program.state_dict if name.endswith("0.weight")]


@decomposed
def test_a_convolution_gets_codes_of_its_rows(tmp_path: Path) -> None:
    module, x = nn.Sequential(nn.Conv2d(3, 4, 3)), inputs(1, 3, 6, 6)
    graph = graph_of(module, tmp_path, x)
    quantized = put(graph, "0", module.get_parameter("0.weight"), "int8")
    weight = quantized.dequantize().view(4, 3, 3, 3)
    expected = nn.functional.conv2d(x, weight, module.get_parameter("0.bias"))
    assert torch.allclose(graph.program().module()(x), expected, atol=0.05)
    assert "quantized_decomposed.dequantize_per_channel.default" in targets(graph)
