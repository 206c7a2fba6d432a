import pytest
import torch

from mpq.formats.scheme import parse_scheme
from mpq.tensors.quantizers.registry import quantizer_named
from mpq.tensors.words import packed, words


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words_hold_codes_lowest_bits_first(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 45), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = words(codes, bits)
    each = 32 // bits
    assert found.shape == (3, -(-45 // each))
    for row in range(3):
        for column in range(45):
            assert int(found[row, column // each]) >> (bits * (column % each)) & (2**bits - 1) == int(codes[row, column])


def test_words_are_those_of_the_package() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = torch.randint(0, 16, (5, 70), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(words(codes, 4), helpers.pack_to_int32((codes.short() - 8).to(torch.int8), 4))


def test_a_layer_is_its_words_its_scales_and_its_shape() -> None:
    weight = quantizer_named("rtn").quantize(torch.randn(3, 40, generator=torch.Generator().manual_seed(0)), parse_scheme("int4-g32"))
    found = packed(weight)
    assert set(found) == {"weight_packed", "weight_scale", "weight_shape"}
    assert torch.equal(found["weight_packed"], words(weight.codes, 4))
    assert weight.scales is not None
    assert torch.equal(found["weight_scale"], weight.scales)
    assert found["weight_shape"].tolist() == [3, 40]
