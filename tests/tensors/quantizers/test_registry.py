import pytest

from mpq.errors import UsageError
from mpq.tensors.quantizers.registry import QUANTIZERS, quantizer_named


@pytest.mark.parametrize("name", QUANTIZERS)
def test_each_is_made_anew_under_its_name(name: str) -> None:
    first, second = quantizer_named(name), quantizer_named(name)
    assert first.name == name
    assert first is not second


def test_unknown_quantizers_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        quantizer_named("gpqt")
    assert str(caught.value) == "'gpqt' is not a quantizer: use one of rtn, mse, hqq, act, gptq, descent"


def test_those_that_look_at_inputs_say_so() -> None:
    assert {name for name in QUANTIZERS if QUANTIZERS.kind(name).needs_statistics} == {"act", "gptq", "descent"}
