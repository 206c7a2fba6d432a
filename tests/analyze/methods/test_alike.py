import torch

from mpq.analyze.methods.alike import Products, alike
from mpq.formats.scheme import Scheme

FOUR, EIGHT = Scheme("int4"), Scheme("int8")


def values(**v: float) -> Products:
    """One sample and one draw; the squares of the rows sum to 4 at int4 and to 0.01 at int8."""
    return {
        ("a", FOUR): torch.tensor([[[v.get("four", 2.0), 4.0]]], dtype=torch.float64),
        ("a", EIGHT): torch.tensor([[[v.get("eight", 0.1), 0.01]]], dtype=torch.float64),
    }


def test_differences_are_judged_by_the_largest_value_of_the_layer() -> None:
    assert alike(values(), values(four=2.0019, eight=0.1019), 1e-3)
    assert not alike(values(), values(four=2.0021), 1e-3)
    assert not alike(values(), values(eight=0.1021), 1e-3)


def test_a_value_that_is_small_by_chance_is_judged_by_its_rows() -> None:
    assert alike(values(four=1e-6, eight=0.0), values(four=1.9e-3, eight=0.0), 1e-3)
    assert not alike(values(four=1e-6, eight=0.0), values(four=2.1e-3, eight=0.0), 1e-3)


def test_squares_of_rows_may_differ_twice_as_much() -> None:
    other = values()
    other["a", FOUR] = torch.tensor([[[2.0, 4.0079]]], dtype=torch.float64)
    assert alike(values(), other, 1e-3)
    other["a", FOUR] = torch.tensor([[[2.0, 4.0081]]], dtype=torch.float64)
    assert not alike(values(), other, 1e-3)


def test_the_same_pairs_must_be_reached() -> None:
    assert not alike(values(), {key: value for key, value in values().items() if key[1] == FOUR}, 1.0)
    assert alike({}, {}, 1e-3)
