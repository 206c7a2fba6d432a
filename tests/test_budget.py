from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq.budget import Budget, Scope, budget_range
from mpq.errors import BudgetError

HELP = "write bits per weight (4.5bits), bytes (12MB, 12MiB, 900kB) or a share of the original (30%)"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("4.5bits", 562),
        ("4.5 bits", 562),
        ("1bit", 125),
        ("4.5bpw", 562),
        ("30%", 1200),
        ("900B", 900),
        ("900b", 900),
        ("1.5kB", 1500),
        ("1.5KiB", 1536),
        ("2MB", 2_000_000),
        ("2MiB", 2 << 20),
        ("1GB", 10**9),
        ("1 gib", 1 << 30),
        (".5kb", 500),
    ],
)
def test_every_unit_becomes_whole_bytes(limit: str, expected: int) -> None:
    assert Budget(limit).bytes(weights=1000, original_bytes=4000) == expected


@given(st.decimals(min_value="0.001", max_value=1000, places=3), st.integers(1, 10**12))
def test_limits_are_exact_and_rounded_down(number: Decimal, size: int) -> None:
    assert Budget(f"{number:f}%").bytes(weights=1, original_bytes=size) == int(number * size / 100)
    assert Budget(f"{number:f}bits").bytes(weights=size, original_bytes=1) == int(number * size / 8)
    assert Budget(f"{number:f}MB").bytes(weights=1, original_bytes=1) == int(number * 10**6)


def test_a_share_that_is_no_binary_fraction_loses_no_byte() -> None:
    assert Budget("29%").bytes(weights=1, original_bytes=100) == 29
    assert Budget("2.3MB").bytes(weights=1, original_bytes=1) == 2_300_000


@pytest.mark.parametrize("limit", ["", "4.5", "bits", "-4bits", "4,5bits", "12 TB", "1e3B", "30%%", "4.bits"])
def test_what_is_no_budget_is_refused_with_examples(limit: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget(limit)
    assert str(error.value) == f"'{limit}' is not a budget: {HELP}"


def test_nothing_is_not_a_budget() -> None:
    with pytest.raises(BudgetError) as error:
        Budget("0.0bits")
    assert str(error.value) == f"budget '0.0bits' is not positive: {HELP}"


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(BudgetError) as error:
        Budget("4bits", "model")  # type: ignore[arg-type]
    assert str(error.value) == "'model' is not a scope: use layers or file"


def test_a_budget_is_written_with_its_scope() -> None:
    assert str(Budget("4.5bits", "file")) == "4.5bits (file)"


@pytest.mark.parametrize(
    ("limit", "relative"), [("4bits", True), ("1bit", True), ("4bpw", True), ("30%", True), ("9b", False), ("1MiB", False)]
)
def test_bits_and_shares_depend_on_the_model_and_bytes_do_not(limit: str, relative: bool) -> None:
    assert Budget(limit).unit_is_relative is relative


def test_a_range_gives_its_budgets_smallest_first() -> None:
    assert [budget.limit for budget in budget_range("3:4.5bits")] == ["3bits", "3.5bits", "4bits", "4.5bits"]
    assert [budget.limit for budget in budget_range("3:3.5:0.25bits", "file")] == ["3bits", "3.25bits", "3.5bits"]
    assert budget_range("12MB") == [Budget("12MB")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4.5:6:0.5bits", "4.5bits 5bits 5.5bits 6bits"),
        ("3:4:0.1bits", "3bits 3.1bits 3.2bits 3.3bits 3.4bits 3.5bits 3.6bits 3.7bits 3.8bits 3.9bits 4bits"),
        ("3:4:0.3bits", "3bits 3.3bits 3.6bits 3.9bits 4bits"),
        ("3:3.2bits", "3bits 3.2bits"),
        ("10:30:10%", "10% 20% 30%"),
        ("1000000:2000000:500000B", "1000000B 1500000B 2000000B"),
    ],
)
def test_a_range_includes_both_ends_exactly(text: str, expected: str) -> None:
    assert " ".join(budget.limit for budget in budget_range(text)) == expected


@pytest.mark.parametrize("text", ["5:3bits", "3:4:0bits", "1:900:1bits", "1:64.5:1bits", "1:900000000:0.001bits"])
def test_an_empty_or_endless_range_is_refused(text: str) -> None:
    with pytest.raises(BudgetError) as error:
        budget_range(text)
    assert str(error.value) == f"'{text}' is not a range of 1 to 64 budgets: write for example 3:6bits or 3:6:0.25bits"


@pytest.mark.parametrize(
    ("limit", "scope", "reason"),
    [
        ("200%", "layers", "budget '200%' is more than the original, which is 100%: write for example 30%"),
        ("100.1%", "file", "budget '100.1%' is more than the original, which is 100%: write for example 30%"),
        ("40bits", "layers", "budget '40bits' is more than the 32 bits of a weight in fp32: write for example 4.5bits"),
        ("33bpw", "layers", "budget '33bpw' is more than the 32 bits of a weight in fp32: write for example 4.5bits"),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(limit: str, scope: Scope, reason: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget(limit, scope).check_possible()
    assert str(error.value) == reason


@pytest.mark.parametrize(
    ("limit", "scope"), [("100%", "layers"), ("32bits", "layers"), ("40bits", "file"), ("900B", "layers"), ("1GB", "file")]
)
def test_a_limit_that_may_be_met_is_possible(limit: str, scope: Scope) -> None:
    Budget(limit, scope).check_possible()
