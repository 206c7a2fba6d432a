import pytest
import torch

from mpq.runtime.packed_weight import packed_weight
from mpq.tensors.packed import PackedTensor
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import inputs
from tests.small import linear, schemes

LAYER = linear("a", 4, 32)


@pytest.mark.parametrize("text", ["int8", "int4-g32", "int3-asym"])
def test_codes_are_a_packed_tensor_that_stands_for_the_weight(text: str) -> None:
    (scheme,) = schemes(text)
    weight = quantizer_named("rtn").quantize(inputs(4, 32), scheme)
    found = packed_weight(weight.pack(), LAYER, scheme, torch.float32)
    assert isinstance(found, PackedTensor)
    assert (found.shape, found.dtype) == ((4, 32), torch.float32)
    assert torch.allclose(found.dequantize(), weight.dequantize(), atol=1e-6)


def test_numbers_of_the_models_dtype_are_an_ordinary_tensor() -> None:
    (scheme,) = schemes("fp16")
    weight = quantizer_named("rtn").quantize(inputs(4, 32), scheme)
    found = packed_weight(weight.pack(), LAYER, scheme, torch.float16)
    assert type(found) is torch.Tensor
    assert torch.equal(found, inputs(4, 32).half())
