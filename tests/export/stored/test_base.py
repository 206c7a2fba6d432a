import torch

from mpq.export.stored.base import Place, as_values, integer_scheme, values
from tests.small import schemes

PLACE = Place("a", schemes("int8")[0], (2, 3))


def test_the_scheme_of_codes_follows_from_their_scales() -> None:
    cases = [(1, 64), (2, 32), (1, 32)]
    found = [integer_scheme(4, groups=groups, columns=64, group_size=size, symmetric=True) for groups, size in cases]
    assert [str(scheme) for scheme in found] == ["int4", "int4-g32", "int4-g32"]
    assert str(integer_scheme(8, groups=2, columns=64, group_size=32, symmetric=False)) == "int8-asym-g32"


def test_the_first_name_with_values_of_the_right_number_is_found() -> None:
    tensors = {"codes": torch.ones(2, 3, dtype=torch.uint8), "short": torch.ones(5), "w": torch.arange(6.0).half()}
    assert as_values(tensors, PLACE, "codes", "short", "none") is None
    found = as_values(tensors, PLACE, "codes", "none", "w")
    assert found is not None
    assert found[0] == "w"
    assert found[1].dequantize().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_values_are_a_weight_in_float32() -> None:
    weight = values(torch.ones(4, 2, 3, dtype=torch.bfloat16))
    assert (str(weight.scheme), weight.matrix) == ("fp32", (4, 6))
    assert weight.dequantize().dtype == torch.float32
