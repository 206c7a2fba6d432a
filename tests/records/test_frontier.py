from mpq.formats.scheme import parse_scheme
from mpq.records.frontier import Change, Frontier, Margin, Point

INT2, INT4, INT8 = map(parse_scheme, ("int2", "int4", "int8"))


def point(a: str, b: str, *, layer_bytes: int, predicted: float) -> Point:
    return Point("", {"a": parse_scheme(a), "b": parse_scheme(b)}, 4.0, layer_bytes, layer_bytes + 500, predicted)


LARGE, SMALL = point("int8", "int4", layer_bytes=1200, predicted=0.25), point("int4", "int2", layer_bytes=900, predicted=0.75)


def test_a_margin_counts_what_the_second_plan_takes_and_errs_beyond_the_first() -> None:
    assert (Margin(LARGE, SMALL).bytes, Margin(LARGE, SMALL).error) == (-300, 0.5)
    assert (Margin(SMALL, LARGE).bytes, Margin(SMALL, LARGE).error) == (300, -0.5)


def test_its_changes_are_the_layers_that_differ_in_model_order() -> None:
    assert Margin(LARGE, SMALL).changes == (Change("a", INT8, INT4), Change("b", INT4, INT2))
    assert Margin(LARGE, point("int8", "int2", layer_bytes=1, predicted=1.0)).changes == (Change("b", INT4, INT2),)
    assert Margin(LARGE, LARGE).changes == ()


def test_a_table_alone_has_no_plan_and_no_margins() -> None:
    found = Frontier((SMALL, LARGE), ())
    assert (found.uniform, found.chosen, found.more, found.less) == ((), None, None, None)
