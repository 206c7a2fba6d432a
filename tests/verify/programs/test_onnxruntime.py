from importlib.util import find_spec
from pathlib import Path

import pytest

from mpq.verify.programs.onnxruntime import OnnxRuntime
from tests.verify.making import check_loaded

pytestmark = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")


def test_an_export_is_loaded_with_its_weights_and_gives_the_outputs_of_the_artifact(tmp_path: Path) -> None:
    check_loaded(tmp_path, OnnxRuntime(), "onnx", "out.onnx", tells_used=True)


def test_it_is_the_program_of_its_target() -> None:
    assert OnnxRuntime.targets == ("onnx",)
