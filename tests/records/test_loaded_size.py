import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.records.loaded_size import loaded_bytes
from mpq.tensors.kernels import bags
from mpq.tensors.kernels.stored import stored_codes
from mpq.tensors.quantizers.registry import quantizer_named

MATRICES = {"a": (8, 64), "b": (4, 4)}
SCHEMES = {"a": parse_scheme("nf4-g32"), "b": parse_scheme("fp16")}


def test_dense_layers_take_what_they_took_before_whatever_their_scheme() -> None:
    assert loaded_bytes(SCHEMES, MATRICES, original_bytes=2112, rest_bytes=40) == 2152


def test_formats_without_a_fast_kernel_take_what_they_take_in_the_file() -> None:
    codes, scales, values = 8 * 64 // 2, 8 * 2 * 2, 16 * 2
    assert loaded_bytes(SCHEMES, MATRICES, original_bytes=2112, rest_bytes=40, form="packed") == codes + scales + values + 40


@pytest.mark.parametrize("text", ["int2", "int3-asym", "int4-g32", "int4-asym-g8", "int5", "int8-g16", "int1", "ternary-g32"])
@pytest.mark.parametrize("matrix", [(8, 64), (7, 33), (1100, 1000)])
def test_packed_layers_take_what_their_tables_take(text: str, matrix: tuple[int, int]) -> None:
    scheme = parse_scheme(text)
    weight = torch.randn(matrix, generator=torch.Generator().manual_seed(0))
    table = bags.packed_of(stored_codes(quantizer_named("rtn").quantize(weight, scheme).pack(), scheme, matrix))
    taken = sum(part.numel() * part.element_size() for part in (table.codes, table.scales, table.zero_points) if part is not None)
    assert loaded_bytes({"a": scheme}, {"a": matrix}, original_bytes=0, rest_bytes=0, form="packed") == taken
