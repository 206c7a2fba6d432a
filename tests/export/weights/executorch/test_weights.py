import pytest
import torch
from torch import Tensor

from mpq.export.weights.executorch.weights import fits_positive, signed_codes, with_positive_scales
from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantized import QuantizedWeight


def weight(text: str, codes: list[list[int]], scales: list[list[float]]) -> QuantizedWeight:
    """A symmetric weight of codes around zero."""
    scheme = parse_scheme(text)
    stored = (torch.tensor(codes) + 2 ** (scheme.bits - 1)).to(torch.uint8)
    return QuantizedWeight(scheme, (len(codes), len(codes[0])), stored, torch.tensor(scales, dtype=torch.float16), None)


def product(found: tuple[Tensor, Tensor, Tensor | None], group: int) -> Tensor:
    codes, scales, signs = found
    values = codes.float() * scales.repeat_interleave(group, 1)[:, : codes.shape[1]]
    return values if signs is None else values * signs[:, None]


def test_codes_are_signed_around_the_middle() -> None:
    codes = [[-8, 0, 7, 1]]
    assert signed_codes(weight("int4", codes, [[0.5]])).tolist() == codes


def test_positive_scales_stay_as_they_are() -> None:
    given = weight("int4-g2", [[-8, 7, 3, -1]], [[0.5, 2.0]])
    found = with_positive_scales(given)
    assert (found.codes.tolist(), found.scales.tolist(), found.signs) == ([[-8, 7, 3, -1]], [[0.5, 2.0]], None)
    assert found.codes.dtype == torch.int8


def test_a_group_of_negative_scale_is_turned_around_with_its_codes() -> None:
    given = weight("int4-g2", [[-7, 7, 3, -1]], [[-0.5, 2.0]])
    found = with_positive_scales(given)
    assert (found.codes.tolist(), found.scales.tolist(), found.signs) == ([[7, -7, 3, -1]], [[0.5, 2.0]], None)
    assert torch.equal(product(found, 2), given.dequantize())
    assert fits_positive(given)


def test_a_whole_row_with_the_lowest_code_gets_a_sign() -> None:
    given = weight("int4", [[-8, 7], [3, -1]], [[-0.5], [2.0]])
    found = with_positive_scales(given)
    assert (found.codes.tolist(), found.scales.tolist()) == ([[-8, 7], [3, -1]], [[0.5], [2.0]])
    assert found.signs is not None
    assert found.signs.tolist() == [-1, 1]
    assert torch.equal(product(found, 2), given.dequantize())
    assert fits_positive(given)


@pytest.mark.parametrize(
    ("text", "codes", "scale", "fits"),
    [
        ("int4-g2", [[-8, 7, 3, -1]], -0.5, False),
        ("int4-g2", [[-8, 7, 3, -1]], 0.5, True),
        ("int3-g2", [[-4, 3, 1, -1]], -0.5, True),  # stored in codes of four bits, where -4 has an opposite
        ("int8-g2", [[-128, 7, 3, -1]], -0.5, True),
    ],
)
def test_a_group_with_the_lowest_code_and_a_negative_scale_does_not_fit(
    text: str, codes: list[list[int]], scale: float, fits: bool
) -> None:
    assert fits_positive(weight(text, codes, [[scale, 1.0]])) is fits


def test_a_short_last_group_is_turned_around_too() -> None:
    given = weight("int4-g2", [[1, 2, 3]], [[1.0, -2.0]])
    found = with_positive_scales(given)
    assert (found.codes.tolist(), found.scales.tolist()) == ([[1, 2, -3]], [[1.0, 2.0]])
