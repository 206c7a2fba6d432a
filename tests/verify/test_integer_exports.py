"""Exports that compute in integers are verified, and damages to their weights, biases and ranges are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpq.export.run import export
from mpq.verify.worker import verified
from tests.activations.networks import images, residual
from tests.export.weights.onnx.activations import exported
from tests.export.weights.onnx.test_integers import Tokens

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("static"), residual(), images(16), activations="8")[0]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return exported(tmp_path_factory.mktemp("dynamic"), Tokens().eval(), torch.randn(8, 5, 8), activations="8d")[0]


@pytest.mark.parametrize(("target", "program"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_network_of_integers_passes(static: Path, target: str, program: str) -> None:
    pytest.importorskip(program)
    path = export(static, target).path
    result = verified(path, program, None, trust=False)
    assert result.passed, result.line
    assert result.layers == 5
    assert result.outputs[0].difference is not None
    assert result.outputs[0].difference < 0.008


def test_products_of_tokens_pass_and_lost_scales_are_named(dynamic: Path) -> None:
    path = export(dynamic, "onnx").path
    assert verified(path, "onnxruntime", None, trust=False).passed
    damage(path, "a.scales", lambda scales: scales[::-1].copy())
    result = verified(path, "onnxruntime", None, trust=False)
    assert [(finding.kind, finding.name) for finding in result.findings[:1]] == [("scales swapped", "a")]


@pytest.mark.parametrize(
    ("tensor", "change", "kind", "named"),
    [
        ("second.codes", lambda codes: -codes, "codes", "second"),
        ("second.scales", lambda scales: scales[::-1].copy(), "scales swapped", "second"),
        ("head.bias_codes", lambda codes: codes + 999, "tensor", "head.bias_codes"),
        ("scale", lambda scale: scale * 2, "tensor", None),
        ("zero point", lambda code: code + 9, "tensor", None),
    ],
)
def test_damages_are_named(static: Path, tensor: str, change: Callable[[Any], Any], kind: str, named: str | None) -> None:
    path = export(static, "onnx").path
    first = next(node for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear")
    name = {"scale": first.input[1], "zero point": first.input[2]}.get(tensor, tensor)
    damage(path, name, change)
    result = verified(path, "onnxruntime", None, trust=False)
    assert [(each.kind, each.name) for each in result.findings[:1]] == [(kind, named or name)]


def damage(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a constant of a graph."""
    model = onnx.load(path)
    (found,) = [each for each in model.graph.initializer if each.name == name]
    array = onnx.numpy_helper.to_array(found)
    found.CopyFrom(onnx.numpy_helper.from_array(np.asarray(change(array)).astype(array.dtype), name))
    onnx.save(model, path)
