import torch

from mpq.data.checksums import digest
from mpq.records.artifact import PROGRAM
from mpq.runtime.digests import rest_digest, weight_digest
from mpq.tensors.quantizers.registry import quantizer_named
from tests.models.small import inputs
from tests.small import linear, schemes


def test_the_digest_of_a_layer_is_that_of_its_dequantized_weights() -> None:
    (scheme,) = schemes("int4-g8")
    weight = quantizer_named("rtn").quantize(inputs(4, 16), scheme)
    assert weight_digest(weight.pack(), scheme, linear("a", 4, 16)) == digest(weight.dequantize())


def test_the_digest_of_the_unquantized_tensors_follows_names_and_values_but_not_order_or_program() -> None:
    one, two = torch.ones(2), torch.zeros(3)
    expected = rest_digest({"a": one, "b": two})
    assert len(expected) == 8
    assert rest_digest({"b": two, "a": one, PROGRAM: torch.ones(9)}) == expected
    assert len({expected, rest_digest({"a": two, "b": one}), rest_digest({"a": one, "c": two}), rest_digest({"a": one})}) == 4
