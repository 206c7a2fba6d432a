from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpq.data.batch import Batch
from mpq.errors import UsageError
from mpq.monitor.baseline import baseline_of
from mpq.monitor.sessions import Session, as_module
from mpq.monitor.watch import monitor
from tests.monitor.conftest import data, model


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small model in ONNX Runtime, with a second output of whole numbers."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    module = model()
    make = onnx.helper.make_node
    nodes = [
        make("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
        make("Relu", ["h"], ["r"]),
        make("Gemm", ["r", "w2", "b2"], ["logits"], transB=1),
        make("ArgMax", ["logits"], ["best"], axis=1),
    ]
    held = {"w0": "0.weight", "b0": "0.bias", "w2": "2.weight", "b2": "2.bias"}
    tensors = [onnx.numpy_helper.from_array(module.state_dict()[key].numpy(), name) for name, key in held.items()]
    value, number = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [value("x", number.FLOAT, ["n", 16])],
        [value("best", number.INT64, ["n", 1]), value("logits", number.FLOAT, ["n", 5])],
        tensors,
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path: Path = tmp_path_factory.mktemp("session") / "small.onnx"
    onnx.save(made, path)
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_of_a_session_are_watched(session: Any) -> None:
    baseline = baseline_of(session, [Batch((x,)) for x in data(0)])
    assert set(baseline.tensors) == {"input", "output", "output entropy", "output margin"}
    inside = baseline_of(model(), [Batch((x,)) for x in data(0)], layers=[])
    assert baseline.tensors["input"] == inside.tensors["input"]
    with monitor(session, baseline, sample=1.0, shadow=1.0, reference=session) as watching:
        for x in data(1):
            best, logits = session.run(None, {"x": x.numpy()})
            assert np.array_equal(best[:, 0], logits.argmax(1))
        assert (watching.calls, watching.sampled, watching.alarms()) == (60, 60, [])
        assert watching.agreement.mean == 1.0
        for x in data(2, calls=200, change=lambda x: 9 * x):
            (only,) = session.run(["logits"], {"x": x.numpy()})
        assert only.shape == (8, 5)
        assert {alarm.name for alarm in watching.alarms()} >= {"input", "output"}
    assert "run" not in vars(session)


def test_a_session_has_one_monitor_at_a_time(session: Any) -> None:
    baseline = baseline_of(session, [Batch((x,)) for x in data(0)])
    x = data(1)[0].numpy()
    with monitor(session, baseline, sample=1.0) as first:
        with pytest.raises(UsageError, match=r"^this session is already watched: close its monitor first$"):
            monitor(session, baseline, sample=1.0)
        session.run(None, {"x": x})
        assert first.calls == 1
    with monitor(session, baseline, sample=1.0) as second:
        session.run(None, {"x": x})
    assert (first.calls, second.calls) == (1, 1)


def test_a_session_and_its_module_give_the_same(session: Any) -> None:
    x = torch.randn(3, 16)
    assert torch.allclose(Session(session)(x)["logits"], model()(x), atol=1e-5)
    assert torch.equal(Session(session)(x=x)["best"][:, 0], model()(x).argmax(1))


def test_anything_else_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a str cannot be watched: give an nn\.Module or an onnxruntime\.InferenceSession"):
        as_module("model.onnx")
