from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.export.stored.base import Place
from mpq.export.stored.onnx import Graph, read
from tests.small import schemes

onnx: Any = pytest.importorskip("onnx")
CODES = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
SCALES = np.array([[0.5, 1.0], [2.0, 4.0]], dtype=np.float16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """x @ transpose(dequantized codes) + bias, times a weight of values."""
    helper, numpy = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("DequantizeLinear", ["a.codes", "a.scales"], ["w"], axis=1, block_size=2),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
        helper.make_node("MatMul", ["y", "b.weight"], ["z"]),
    ]
    constants = {"a.codes": CODES, "a.scales": SCALES, "bias": np.ones(2, np.float16), "b.weight": np.ones((2, 3), np.float16)}
    kind = onnx.TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("z", kind, [1, 3])],
        [numpy.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_codes_scales_values_and_uses_are_read(path: Path) -> None:
    int8, fp16 = schemes("int8-g2", "fp16")
    held = read(path, [Place("a", int8, (2, 4)), Place("b", fp16, (2, 3))])
    assert str(held.weights["a"].scheme) == "int8-g2"
    assert held.weights["a"].dequantize().tolist() == [[-2, -1.5, -2, -1], [0, 2, 8, 12]]
    assert held.weights["b"].dequantize().tolist() == [[1, 1, 1]] * 2
    assert held.uses == {"a": ("MatMul",), "b": ("MatMul",)}
    assert {name: tensor.tolist() for name, tensor in held.tensors.items()} == {"bias": [1, 1]}


def test_the_result_of_a_weight_has_its_bias(path: Path) -> None:
    graph = Graph(path)
    assert graph.result_of("w") == "y"
    assert [node.op_type for node in graph.users_of("w")] == ["MatMul"]
    assert graph.array("w") is None
    assert graph.array("bias").tolist() == [1, 1]


def test_parts_of_a_graph_are_graphs(path: Path) -> None:
    graph = Graph(path)
    alone = onnx.load_from_string(graph.computed("w"))
    assert [node.op_type for node in alone.graph.node] == ["DequantizeLinear"]
    assert sorted(each.name for each in alone.graph.initializer) == ["a.codes", "a.scales"]
    more = onnx.load_from_string(graph.with_outputs(["y", "z"]))
    assert [each.name for each in more.graph.output] == ["z", "y"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="is not an ONNX file, or is damaged"):
        Graph(tmp_path / "a")
