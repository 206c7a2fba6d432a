import math

import pytest

from mpq.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"),
        (0.0, "0"),
        (1e-4, "0.0001"),
        (1.234e-7, "1.23e-7"),
        (1.234e-12, "1.23e-12"),
        (None, words.UNKNOWN),
        (math.nan, words.UNKNOWN),
        (math.inf, "∞"),
        (-0.5, f"{words.MINUS}0.5"),
    ],
)
def test_figures_have_four_digits(value: float | None, text: str) -> None:
    assert words.figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.012"),
        (0.001234, "1.2e-3"),
        (12345.0, "1.2e4"),
        (None, words.UNKNOWN),
        (math.inf, "∞"),
    ],
)
def test_narrow_cells_have_two_digits(value: float | None, text: str) -> None:
    assert words.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (184_296, "184.3 kB"), (2_500_000, "2.5 MB"), (7_693_660_160, "7.694 GB")],
)
def test_sizes_are_decimal(value: int, text: str) -> None:
    assert words.size(value) == text


def test_a_signed_size_always_has_its_sign() -> None:
    assert [words.signed_size(value) for value in (1500, 0, -12)] == ["+1.5 kB", "+0 bytes", f"{words.MINUS}12 bytes"]


def test_changes_are_signed_percentages() -> None:
    assert words.change(0.5, 1.0) == f"{words.MINUS}50%"
    assert words.change(1.5, 1.0) == "+50%"
    assert words.change(1.0, 0.0) == words.UNKNOWN
    assert words.change(math.inf, 1.0) == words.UNKNOWN


@pytest.mark.parametrize(("stderr", "text"), [(None, ""), (math.nan, ""), (0.0123, "±0.012"), (3.21e-6, "±3.2e-6")])
def test_a_standard_error_has_two_digits_or_is_left_out(stderr: float | None, text: str) -> None:
    assert words.noise(stderr) == text


@pytest.mark.parametrize(("part", "whole", "text"), [(1, 8, "12%"), (1, 16, "6.2%"), (0, 5, "0.0%"), (3, 3, "100%"), (0, 0, "0.0%")])
def test_a_share_below_ten_percent_has_one_decimal(part: float, whole: float, text: str) -> None:
    assert words.share(part, whole) == text


@pytest.mark.parametrize(("exponent", "text"), [(0, "1"), (3, "1000"), (-3, "0.001"), (-12, "10⁻¹²"), (4, "10⁴")])
def test_powers_far_from_one_are_superscripts(exponent: int, text: str) -> None:
    assert words.power(exponent) == text


def test_a_count_names_one_thing_in_the_singular() -> None:
    assert [words.count(number, "layer") for number in (0, 1, 2000)] == ["0 layers", "1 layer", "2,000 layers"]


def test_what_rounding_brought_below_zero_is_zero() -> None:
    assert (words.figure(-3e-8), words.short(-3e-8)) == ("0*", "0*")
    assert words.figure(-2e-6) == "-2.00e-6"
