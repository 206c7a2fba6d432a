from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpq.errors import FormatError
from mpq.export.stored.openvino import opened, read

openvino: Any = pytest.importorskip("openvino")
CODES = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ops = openvino.opset13
    x = ops.parameter([1, 4], np.float32, name="x")
    codes = ops.constant(CODES, name="codes")
    scaled = ops.multiply(ops.convert(codes, "f32"), ops.constant(np.array([[0.5], [2.0]], np.float32), name="scales"))
    out = ops.add(ops.matmul(x, scaled, False, True), ops.constant(np.ones((1, 2), np.float32), name="bias"))
    openvino.save_model(openvino.Model([out], [x], "m"), tmp_path / "m.xml", compress_to_fp16=False)
    return tmp_path / "m.xml"


def test_codes_scales_and_uses_are_read(path: Path) -> None:
    held = read(path, [])
    (name,) = held.weights
    assert str(held.weights[name].scheme) == "int8"
    assert held.weights[name].dequantize().tolist() == [[-2, -1.5, -1, -0.5], [0, 2, 4, 6]]
    assert held.uses == {name: ("MatMul",)}
    assert [tensor.tolist() for tensor in held.tensors.values()] == [[[1, 1]]]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<no/>")
    with pytest.raises(FormatError, match="is not an OpenVINO model, or is damaged"):
        opened(tmp_path / "a.xml")
