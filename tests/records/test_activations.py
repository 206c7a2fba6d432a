import json
from typing import Any

import pytest

from mpq.errors import FormatError
from mpq.reading.documents import json_document
from mpq.reading.validate import validated
from mpq.records.activations import ActivationGroup, GroupFacts, RoundedTensor, around_zero, groups_in, header_bytes, summary, to_dict

STATIC = ActivationGroup("a8", (RoundedTensor(("conv.1", "add.0.1"), 0.02, 3), RoundedTensor(("add.0.0",), 0.5, 128)))
DYNAMIC = ActivationGroup("a8d", (RoundedTensor(("linear.0",)),))
BOTH = {"layer1": STATIC, "head": DYNAMIC}


def read(value: Any) -> dict[str, ActivationGroup]:
    document = json_document(json.dumps(value).encode(), name="plan", error=FormatError, remedy="correct it")
    return groups_in(document, validated(document, dict[str, GroupFacts]))


def test_groups_are_read_as_they_were_written() -> None:
    assert read(to_dict(BOTH)) == BOTH


def test_the_bytes_in_a_header_are_exact() -> None:
    def length(metadata: dict[str, Any]) -> int:
        return len(json.dumps(json.dumps(metadata, separators=(",", ":"), ensure_ascii=False), ensure_ascii=False).encode())

    assert header_bytes(BOTH) == length({"version": 1, "activations": to_dict(BOTH)}) - length({"version": 1})
    assert header_bytes({}) == 0


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"scheme": "a8", "tensors": [{"readers": ["conv.0"]}]}, "tensor 0 of activations 'x' is a8: give scale and zero_point"),
        (
            {"scheme": "a8d", "tensors": [{"readers": ["linear.0"], "scale": 1.0, "zero_point": 0}]},
            "tensor 0 of activations 'x' is a8d: leave out scale and zero_point",
        ),
        ({"scheme": "a8d", "tensors": [{"readers": ["conv.0"]}]}, "has the reader 'conv.0', and a8d is for matrix products: use a8"),
        ({"scheme": "a4", "tensors": [{"readers": ["conv.0"]}]}, "x.scheme is 'a4': give one of a8, a8d"),
        ({"scheme": "a8", "tensors": [{"readers": ["conv"]}]}, "is 'conv': give an operator, for example conv.3 or add.0.1"),
        (
            {"scheme": "a8", "tensors": [{"readers": ["conv.0"], "scale": 1.0, "zero_point": 300}]},
            "zero_point is 300: give a whole number of at most 255",
        ),
    ],
)
def test_a_wrong_group_is_named(group: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError) as error:
        read({"x": group})
    assert message in str(error.value)


def test_a_reader_belongs_to_one_tensor() -> None:
    with pytest.raises(FormatError, match=r"activations 'head' and 'more' both hold 'linear\.0': give it to one tensor"):
        read(to_dict({"head": DYNAMIC, "more": DYNAMIC}))


def test_a_summary_counts_tensors_and_groups() -> None:
    assert summary(BOTH) == "3 tensors in 2 groups: 1 a8, 1 a8d"
    assert summary({}) == "all in floating point"


def test_ranges_around_zero_hold_the_ranges_that_there_were() -> None:
    made = around_zero(BOTH)
    assert made["head"] == DYNAMIC
    first, second = made["layer1"].tensors
    assert (first.readers, first.zero_point, second.zero_point) == (("conv.1", "add.0.1"), 128, 128)
    assert first.scale == pytest.approx(0.02 * 252 / 127)  # from -0.06 to 5.04
    assert second.scale == pytest.approx(0.5 * 128 / 127)  # from -64 to 63.5
