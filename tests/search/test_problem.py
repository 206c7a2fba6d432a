import math

import pytest

from mpq.errors import UsageError
from mpq.formats.scheme import parse_scheme
from mpq.search.problem import Problem, build_groups
from tests.small import linear, table

LAYERS = [linear("a", 4, 64), linear("b", 8, 64), linear("c", 2, 40)]
TABLE = table(
    LAYERS,
    {
        "a": {"int4": 1.0, "int4-g32": 0.5, "int8": 0.1},
        "b": {"int4": 2.0, "int4-g32": 1.5, "int8": 0.2},
        "c": {"int4": 3.0, "int8": 0.3},
    },
)


def texts(problem: Problem, choice: tuple[int, ...]) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in problem.schemes(choice).items()}


def test_every_layer_is_a_group_with_its_options_in_order_of_size() -> None:
    groups = build_groups(TABLE)
    assert [group.name for group in groups] == ["a", "b", "c"]
    assert [(option.cost, option.error) for option in groups[0].options] == [(136, 1.0), (144, 0.5), (264, 0.1)]
    problem = Problem(groups, 10**6)
    assert texts(problem, (1, 0, 1)) == {"a": "int4-g32", "b": "int4", "c": "int8"}
    assert problem.cost((1, 0, 1)) == 144 + 272 + 84
    assert problem.error((1, 0, 1)) == math.fsum([0.5, 2.0, 0.3])
    assert (problem.smallest, problem.largest) == (136 + 272 + 44, 264 + 528 + 84)


def test_tied_layers_are_one_group_of_what_they_have_in_common() -> None:
    groups = build_groups(TABLE, ties=[("c", "a")])
    assert [group.name for group in groups] == ["c+a", "b"]
    assert [option.schemes for option in groups[0].options] == [dict.fromkeys(("c", "a"), parse_scheme(text)) for text in ("int4", "int8")]
    assert [(option.cost, option.error) for option in groups[0].options] == [(44 + 136, 4.0), (84 + 264, 0.4)]


def test_a_pinned_layer_has_one_option_and_pins_its_ties_too() -> None:
    pins = {"a": parse_scheme("int8")}
    assert [len(group.options) for group in build_groups(TABLE, pins=pins)] == [1, 3, 2]
    tied = build_groups(TABLE, pins=pins, ties=[("b", "a")])
    assert [str(option.schemes["b"]) for option in tied[0].options] == ["int8"]


def test_a_pin_that_was_not_measured_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        build_groups(TABLE, pins={"a": parse_scheme("fp16")})
    assert str(error.value) == "layer 'a' is pinned to fp16, which was not measured: choose from int4, int4-g32, int8"


def test_tied_layers_without_a_common_scheme_are_refused() -> None:
    apart = table(LAYERS[:2], {"a": {"int4": 1.0}, "b": {"int8": 1.0}})
    with pytest.raises(UsageError) as error:
        build_groups(apart, ties=[("a", "b")])
    assert str(error.value) == "no measured scheme works for a, b together: analyze more candidates"


def test_options_whose_outputs_are_not_finite_are_left_out() -> None:
    broken = table(LAYERS[:1], {"a": {"int4": [1.0, math.nan], "int8": 0.5}})
    assert [str(option.schemes["a"]) for option in build_groups(broken)[0].options] == ["int8"]
    with pytest.raises(UsageError) as error:
        build_groups(table(LAYERS[:1], {"a": {"int4": [math.nan]}}))
    assert str(error.value) == "no measured scheme works for a: analyze more candidates"
