from dataclasses import replace
from typing import Any

import pytest

from mpq.errors import UsageError
from mpq.records.sensitivity import Sensitivity
from mpq.records.sensitivity_header import Rest
from mpq.search.rest import stored_as
from mpq.search.run import search
from tests.small import REST, linear, table

BF16 = Rest(510, 128, 40, 160, "bf16")


def with_options(**options: Rest | str) -> Sensitivity:
    found = table([linear("a", 8, 64)], {"a": {"int4": 1.0, "int8": 0.5}})
    return replace(found, header=replace(found.header, rest_as=options))


def test_a_plan_counts_what_the_dtype_takes() -> None:
    found = with_options(bf16=BF16)
    plain, smaller = search(found, "8.5bits"), search(found, "8.5bits", rest="bf16")
    assert plain.plan.rest == REST
    assert smaller.plan.rest == BF16
    assert plain.plan.size.file_bytes - smaller.plan.size.file_bytes == 256 - 128 - 8  # 10 more bytes of header are 8 when it is padded
    assert smaller.plan.analysis == plain.plan.analysis


def test_no_dtype_changes_nothing_and_the_same_one_only_once() -> None:
    found = with_options(bf16=BF16)
    assert stored_as(found, None) is found
    once = stored_as(found, "bf16")
    assert stored_as(once, "bf16") is once
    assert once.sha256 == found.sha256


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bf16": BF16}, r"^--rest fp16 makes no unquantized tensor smaller: leave it out$"),
        ({}, r"^--rest fp16 makes no unquantized tensor smaller: leave it out; if an earlier version of mpq made the analysis, run `mpq"),
        ({"fp16": "'x' holds 7e+04"}, r"^--rest fp16: 'x' holds 7e\+04$"),
    ],
)
def test_what_cannot_be_stored_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        stored_as(with_options(**options), "fp16")


def test_a_measurer_that_does_not_round_is_refused() -> None:
    class Whole:
        calibration = held_out = None

    with pytest.raises(UsageError, match=r"^the measurer does not store unquantized tensors in bf16: make it with rest_dtype='bf16'$"):
        search(with_options(bf16=BF16), "8.5bits", rest="bf16", measurer=Whole())  # type: ignore[arg-type]
