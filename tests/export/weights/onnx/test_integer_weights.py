import numpy as np
import pytest

from mpq.formats.scheme import parse_scheme
from tests.small import linear

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package)

from mpq.export.weights.onnx.integer_weights import Parts, _scaled, _wide_enough, multiplies_as_integers  # noqa: E402


def test_weights_with_one_scale_per_row_and_no_zero_point_are_integers() -> None:
    layer = linear("a", 4, 8)
    assert [multiplies_as_integers(parse_scheme(text), layer) for text in ("int8", "int4", "int4-g4", "int8-asym", "fp16")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_factor_goes_into_scales_and_its_sign_into_codes() -> None:
    parts = Parts(np.array([[1, -127], [2, 3], [-128, 5]], dtype=np.int8), np.array([0.5, 1.0, 2.0], dtype=np.float32))
    found = _scaled(parts, np.array([-2.0, 3.0, -1.0]))
    assert found.codes.tolist() == [[-1, 127], [2, 3], [-128, 5]]
    assert found.scales.tolist() == [1.0, 3.0, -2.0]  # 128 is not a code, so this scale keeps the sign


def test_a_bias_that_no_int32_holds_makes_the_scale_of_its_row_larger() -> None:
    parts = Parts(np.array([[100, -100], [100, -100]], dtype=np.int8), np.array([1e-12, 0.01], dtype=np.float32))
    found = _wide_enough(parts, np.array([5.0, 5.0]), 0.1)
    assert found.codes.tolist() == [[0, 0], [100, -100]]
    assert abs(5.0 / (0.1 * float(found.scales[0]))) <= 2**30 * 1.001
    assert found.scales[1] == np.float32(0.01)
