"""The time of each layer, by the profiler of a runtime."""

from pathlib import Path

import pytest
import torch

from mpq.export.abilities import ExportError
from mpq.export.timing import attributed, layer_times, tag, version_of
from tests.activations.networks import depthwise, images
from tests.export.weights.onnx.activations import exported

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
LAYERS = ["0", "3", "6", "10"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("timed"), depthwise(), images(16), activations="8")[2].path


def test_nodes_are_called_after_the_layer_they_follow_and_the_graph_computes_the_same(graph: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    tagged = tag(graph, LAYERS, tmp_path / "tagged.onnx")
    names = {node.op_type: node.name for node in onnx.load(tagged).graph.node}
    assert names["Gemm"].startswith("mpq.3.")
    convolutions = [node.name.split(".")[:2] for node in onnx.load(tagged).graph.node if node.op_type == "Conv"]
    assert convolutions == [["mpq", "0"], ["mpq", "1"], ["mpq", "2"]]
    relus = [node.name.split(".")[:2] for node in onnx.load(tagged).graph.node if node.op_type == "Relu"]
    assert relus == convolutions
    first, second = (
        onnxruntime.InferenceSession(path).run(None, {onnx.load(path).graph.input[0].name: images(3).numpy()})[0]
        for path in (graph, tagged)
    )
    assert (first == second).all()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_times_of_layers_add_up_to_that_of_a_call(graph: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    found = layer_times(graph, LAYERS, [images(2).numpy()], runtime=runtime, threads=1, seconds=0.02)
    assert len(found.layers) == 4
    assert all(each >= 0 for each in found.layers)
    assert sum(found.layers) == pytest.approx(found.whole)


def test_operators_without_a_layer_belong_to_the_next_one_and_the_least_of_all_calls_counts() -> None:
    calls = [
        [("copy", 1.0), ("mpq.1.node3", 2.0), ("mpq.0.node4", 4.0), ("x_mpq.1.y", 8.0), ("copy", 16.0)],
        [("copy", 9.0), ("mpq.1.node3", 9.0), ("mpq.0.node4", 3.0)],
    ]
    assert attributed(calls, 3) == [3.0, 18.0, 0.0]


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ExportError, match="this target needs openvino: "):
        version_of("openvino")
    assert version_of("onnxruntime").count(".") == 2
    assert torch.get_num_threads() >= 1
