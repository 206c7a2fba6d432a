from mpq.formats.scheme import parse_scheme
from mpq.search.problem import Problem, build_groups
from mpq.search.stages.uniform import uniform_plans
from mpq.search.uniform_plan import uniform_scheme
from tests.small import linear, table

LAYERS = [linear("a", 4, 256), linear("b", 8, 96), linear("c", 2, 40)]
TABLE = table(
    LAYERS,
    {
        "a": {"int4": 1.0, "int4-g128": 0.7, "int4-g32": 0.5, "int8": 0.1, "fp16": 0.0},
        "b": {"int4": 2.0, "int4-g32": 1.5, "int8": 0.2, "fp16": 0.0},
        "c": {"int4": 3.0, "int8": 0.3, "bf16": 0.0},
    },
)
EVERYTHING = 10**6


def plans(limit: int = EVERYTHING, **pins: str) -> dict[str, list[str]]:
    wanted = {name: parse_scheme(text) for name, text in pins.items()}
    problem = Problem(build_groups(TABLE, pins=wanted), limit)
    return {plan.name: [str(s) for s in problem.schemes(plan.choice).values()] for plan in uniform_plans(problem, TABLE, wanted)}


def test_there_is_a_uniform_plan_per_scheme_with_the_nearest_where_a_layer_cannot_take_it() -> None:
    assert plans() == {
        "int4": ["int4", "int4", "int4"],
        "int4-g128": ["int4-g128", "int4", "int4"],
        "int4-g32": ["int4-g32", "int4-g32", "int4"],
        "int8": ["int8", "int8", "int8"],
        "fp16": ["fp16", "fp16", "bf16"],
    }


def test_layers_that_take_another_scheme_are_named() -> None:
    problem = Problem(build_groups(TABLE), EVERYTHING)
    assert [plan.exceptions for plan in uniform_plans(problem, TABLE, {})] == [(), ("b", "c"), ("c",), (), ("c",)]


def test_plans_beyond_the_limit_do_not_compete() -> None:
    exact = 1024 + 8 + 768 + 16 + 80 + 4
    assert "int8" in plans(exact)
    assert "int8" not in plans(exact - 1)


def test_a_pinned_layer_keeps_its_scheme_in_every_uniform_plan() -> None:
    assert {schemes[1] for schemes in plans(b="int8").values()} == {"int8"}


def test_a_format_that_a_layer_does_not_have_makes_no_uniform_plan() -> None:
    apart = table(LAYERS[:2], {"a": {"int3": 1.0, "int8": 0.1}, "b": {"int8": 0.2}})
    problem = Problem(build_groups(apart), EVERYTHING)
    assert [plan.name for plan in uniform_plans(problem, apart, {})] == ["int8"]


def test_a_layer_too_small_for_a_coded_format_uses_the_next_larger_scheme() -> None:
    small = table(LAYERS[:2], {"a": {"ec4": 1.0, "ec5": 0.5, "fp16": 0.0}, "b": {"int4": 0.3, "int8": 0.2, "fp16": 0.0}})
    problem = Problem(build_groups(small), EVERYTHING)
    found = {plan.name: [str(s) for s in problem.schemes(plan.choice).values()] for plan in uniform_plans(problem, small, {})}
    assert found == {"ec4": ["ec4", "int4"], "ec5": ["ec5", "int8"], "fp16": ["fp16", "fp16"]}
    assert [str(uniform_scheme(small, layer, parse_scheme("ec5"))) for layer in LAYERS[:2]] == ["ec5", "int8"]
    assert str(uniform_scheme(small, LAYERS[1], parse_scheme("ec4.5"))) == "ec4.5"
