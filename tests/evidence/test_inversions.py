from mpq.evidence.inversions import inversion_lines, inversions
from mpq.records.sensitivity import Sensitivity
from tests.small import linear, table


def found(**errors: dict[str, list[float]]) -> Sensitivity:
    return table([linear(name, 4, 64) for name in errors], errors)


def test_errors_that_fall_with_every_bit_have_no_inversion() -> None:
    falling = found(a={"int4": [4.0, 5.0], "int8": [1.0, 1.0], "fp16": [0.0, 0.0]})
    assert list(inversions(falling)) == []
    assert inversion_lines(falling) == []


def test_an_error_that_grows_with_bits_is_told_with_its_noise() -> None:
    rising = found(a={"int4": [1.0, 2.0, 3.0], "int8": [1.1, 2.2, 3.3]}, b={"int4": [1.0, 2.0, 3.0], "int8": [3.0, 2.0, 1.5]})
    assert [(one.layer, one.beyond_noise) for one in inversions(rising)] == [("a", True), ("b", False)]
    assert inversion_lines(rising) == [
        "more bits but a larger error: 2 pairs of candidates, 1 significant (a int4 2, int8 2.2)",
    ]


def test_only_samples_that_both_have_are_compared() -> None:
    uneven = found(a={"int4": [1.0, 1.0, 9.0, 9.0], "int8": [2.0, 2.5]})
    assert [one.errors for one in inversions(uneven)] == [(1.0, 2.25)]


def test_figures_that_are_not_finite_are_left_out() -> None:
    assert list(inversions(found(a={"int4": [1.0, 1.0], "int8": [float("nan"), 2.0]}))) == []
