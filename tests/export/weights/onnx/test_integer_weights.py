from types import SimpleNamespace

import numpy as np
import pytest

from mpq.formats.scheme import parse_scheme
from tests.small import linear

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package)

from mpq.export.weights.onnx.integer_weights import IntegerWeights, Parts, _scaled, _wide_enough, multiplies_as_integers, positive  # noqa: E402


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


def test_scales_become_positive_and_a_code_without_an_opposite_moves_by_one() -> None:
    parts = Parts(np.array([[1, -127], [2, 3], [-128, 5]], dtype=np.int8), np.array([-0.5, 1.0, -2.0], dtype=np.float32))
    found = positive(parts)
    assert found.codes.tolist() == [[-1, 127], [2, 3], [127, -5]]
    assert found.scales.tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(("everywhere", "readers", "turned"), [(False, 1, []), (False, 2, ["a"]), (True, 1, ["a"])])
def test_negative_scales_turn_where_a_result_has_several_readers_or_everywhere(everywhere: bool, readers: int, turned: list[str]) -> None:
    weights = IntegerWeights.__new__(IntegerWeights)
    weights._positive, weights.turned = everywhere, []
    user = SimpleNamespace(outputs=[SimpleNamespace(uses=lambda: [None] * readers)])
    parts = Parts(np.array([[-128, 3], [1, 2]], dtype=np.int8), np.array([-0.5, 1.0], dtype=np.float32))
    found = weights._turned(user, "a", parts)
    assert weights.turned == turned
    assert found.codes.tolist() == ([[127, -3], [1, 2]] if turned else parts.codes.tolist())
    assert weights._turned(user, "b", Parts(parts.codes, np.abs(parts.scales))).codes is parts.codes
